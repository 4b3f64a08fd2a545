//! A WebSocket's server side, for workers and dashboards: counts each frame against the peer's rate, gives
//! every fault of the peer its close code, and completes the closing handshake. Does not decide who may
//! connect or what a message means.

mod frames;

use std::{
    borrow::Cow,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use aio_protocol::wire::close;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error,
        error::ProtocolError,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

use crate::rate::{Allowance, Rate};
use frames::FrameCounter;

pub(crate) use tokio_tungstenite::tungstenite::Message;

/// A peer that does not take a frame for this long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a close may take to be sent, and to be answered.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The default of 128 KiB per connection would be most of what a connection costs. Larger frames take more reads.
const READ_BUFFER_BYTES: usize = 1024;

/// What is read and dropped of a peer that is closed because of a fault: more than two sockets' buffers hold.
const MAX_DRAINED_BYTES: usize = 8 * 1024 * 1024;

const TOO_MANY_FRAMES: &str = "RATE_LIMITED: more frames than any peer has to send";

/// What a peer may do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub max_message_bytes: usize,
    /// Bytes that may wait to be written to a peer that does not read.
    pub max_write_buffer_bytes: usize,
    /// Frames of any kind.
    pub frames: &'static Rate,
}

/// An open WebSocket.
pub(crate) struct Socket {
    stream: WebSocketStream<Metered<TokioIo<Upgraded>>>,
    /// What the peer sends cannot be read as frames any more.
    faulty: bool,
}

/// How a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It broke.
    Gone,
    /// The peer closed it, and waits for the answer.
    ClosedByPeer,
    /// This end closes it.
    Close { code: u16, reason: Cow<'static, str> },
}

impl End {
    pub(crate) fn close(code: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Close { code, reason: reason.into() }
    }
}

impl Socket {
    pub(crate) async fn new(upgraded: Upgraded, limits: Limits) -> Self {
        let metered = Metered {
            inner: TokioIo::new(upgraded),
            frames: FrameCounter::default(),
            rate: limits.frames,
            allowance: Allowance::new(Instant::now()),
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(limits.max_write_buffer_bytes)
            .max_frame_size(Some(limits.max_message_bytes))
            .max_message_size(Some(limits.max_message_bytes));
        let stream = WebSocketStream::from_raw_socket(metered, Role::Server, Some(config)).await;
        Self { stream, faulty: false }
    }

    /// The next message, or how the connection ends. May be cancelled. Pings are answered at the next read or write.
    pub(crate) async fn receive(&mut self) -> Result<Message, End> {
        match self.stream.next().await {
            Some(Ok(Message::Close(_))) => Err(End::ClosedByPeer),
            Some(Ok(message)) => Ok(message),
            Some(Err(error)) => {
                self.faulty = true;
                Err(end_after(&error))
            }
            None => Err(End::Gone),
        }
    }

    pub(crate) async fn send(&mut self, message: Message) -> Result<(), SendError> {
        match timeout(SEND_TIMEOUT, self.stream.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SendError::Broken),
            Err(_) => Err(SendError::TimedOut),
        }
    }

    /// Spends `units` of the rate of frames beyond the frames themselves; says whether the peer had them.
    pub(crate) fn spend(&mut self, units: u32) -> bool {
        let metered = self.stream.get_mut();
        metered.allowance.spend(*metered.rate, units, Instant::now())
    }

    /// Completes the closing handshake, and closes the connection under it.
    pub(crate) async fn finish(mut self, end: End) {
        match end {
            End::Gone => return,
            // The library has an answer with the same code ready.
            End::ClosedByPeer => {}
            End::Close { code, reason } => {
                let frame = CloseFrame { code: code.into(), reason: reason.as_ref().into() };
                let sent = timeout(CLOSE_TIMEOUT, self.stream.send(Message::Close(Some(frame)))).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
        }
        let closing = async {
            if !self.faulty {
                while let Some(answer) = self.stream.next().await {
                    self.faulty |= answer.is_err();
                }
            }
            let connection = &mut self.stream.get_mut().inner;
            let _ = connection.shutdown().await;
            if self.faulty {
                // A socket that is dropped with something unread loses what was sent last.
                let _ =
                    tokio::io::copy(&mut connection.take(MAX_DRAINED_BYTES as u64), &mut tokio::io::sink())
                        .await;
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }
}

/// Why nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendError {
    Broken,
    /// The peer did not take it in time.
    TimedOut,
}

impl From<SendError> for End {
    fn from(_: SendError) -> Self {
        Self::Gone
    }
}

fn end_after(error: &Error) -> End {
    match error {
        Error::Capacity(_) => End::close(close::TOO_LARGE, "the message is too large"),
        Error::Utf8(_) => End::close(close::NOT_UTF8, "the text is not UTF-8"),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Gone,
        // Its own text says what of RFC 6455 was broken, and nothing of the peer's.
        Error::Protocol(error) => End::close(close::PROTOCOL_ERROR, error.to_string()),
        Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<TooManyFrames>()) => {
            End::close(close::TOO_FAST, TOO_MANY_FRAMES)
        }
        _ => End::Gone,
    }
}

/// A peer sent more frames than its rate allows.
#[derive(Debug, thiserror::Error)]
#[error("too many frames")]
struct TooManyFrames;

/// A connection whose frames are counted as they are read.
struct Metered<S> {
    inner: S,
    frames: FrameCounter,
    rate: &'static Rate,
    allowance: Allowance,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let frames = self.frames.count(buffer.filled().get(before..).unwrap_or_default());
        let rate = *self.rate;
        if frames > 0 && !self.allowance.spend(rate, frames, Instant::now()) {
            return Poll::Ready(Err(io::Error::other(TooManyFrames)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
