//! A WebSocket's server side, for workers and dashboards: counts each frame against the peer's rate, answers
//! pings, gives every fault of the peer its close code, and completes the closing handshake. Keeps no buffer
//! while nothing is under way: a library's is most of what an idle connection costs. Does not decide who may
//! connect or what a message means.

mod frames;

use std::{
    borrow::Cow,
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use aio_protocol::wire::close;
use hyper::upgrade::Upgraded;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

use crate::{
    listener::{self, Transport},
    rate::{Allowance, Rate},
};
use frames::{Fault, Frame, Opcode, Reader};

/// A peer that does not take a frame for this long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a close may take to be sent, and to be answered.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What is read at once. A heartbeat and its ping fit, so that they cost one system call.
const CHUNK_BYTES: usize = 4096;

/// What is read and dropped of a peer that is closed because of a fault: more than two sockets' buffers hold.
const MAX_DRAINED_BYTES: u64 = 8 * 1024 * 1024;

const TOO_MANY_FRAMES: &str = "RATE_LIMITED: more frames than any peer has to send";

/// What a peer may do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub max_message_bytes: usize,
    /// Frames of any kind.
    pub frames: Rate,
}

/// What a peer says.
#[derive(Debug)]
pub(crate) enum Message {
    Text(String),
    Binary,
    Pong(Vec<u8>),
}

/// An open WebSocket.
pub(crate) struct Socket {
    stream: Box<dyn Transport>,
    limits: &'static Limits,
    allowance: Allowance,
    reader: Reader,
    /// Bytes that the peer has not taken yet.
    unsent: Vec<u8>,
    /// The answer to the last ping.
    pong: Option<Vec<u8>>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// This end closed it, and waits for the answer.
    Closing,
    /// The peer closed it, with this code.
    ClosedByPeer(Option<u16>),
    /// What the peer sends cannot be read as frames any more.
    Faulty,
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
    /// Takes over what an upgrade leaves. The runtime that calls is the one that has to use it.
    pub(crate) fn new(upgraded: Upgraded, limits: &'static Limits) -> io::Result<Self> {
        let (stream, early) = listener::detach(upgraded)?;
        let mut reader = Reader::default();
        reader.push(&early);
        Ok(Self {
            stream,
            limits,
            allowance: Allowance::new(Instant::now()),
            reader,
            unsent: Vec::new(),
            pong: None,
            state: State::Open,
        })
    }

    /// The next message, or how the connection ends. May be cancelled. Pings are answered at the
    /// next read or write.
    pub(crate) async fn receive(&mut self) -> Result<Message, End> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    pub(crate) async fn send_text(&mut self, text: &str) -> Result<(), SendError> {
        self.send(Opcode::Text, text.as_bytes()).await
    }

    pub(crate) async fn ping(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.send(Opcode::Ping, payload).await
    }

    async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), SendError> {
        frames::write(opcode, payload, &mut self.unsent);
        match timeout(SEND_TIMEOUT, poll_fn(|cx| self.poll_flush(cx))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SendError::Broken),
            Err(_) => Err(SendError::TimedOut),
        }
    }

    /// Spends `units` of the rate of frames beyond the frames themselves; says whether the peer had them.
    pub(crate) fn spend(&mut self, units: u32) -> bool {
        self.allowance.spend(self.limits.frames, units, Instant::now())
    }

    /// Completes the closing handshake, and closes the connection under it.
    pub(crate) async fn finish(mut self, end: End) {
        let (code, reason) = match (end, self.state) {
            (End::Gone, _) => return,
            (_, State::ClosedByPeer(code)) => (code, Cow::Borrowed("")),
            (End::Close { code, reason }, _) => (Some(code), reason),
            (End::ClosedByPeer, _) => return,
        };
        if self.state == State::Open {
            self.state = State::Closing;
        }
        self.pong = None;
        frames::write_close(code, &reason, &mut self.unsent);
        if !matches!(timeout(CLOSE_TIMEOUT, poll_fn(|cx| self.poll_flush(cx))).await, Ok(Ok(()))) {
            return;
        }
        let closing = async {
            while self.state == State::Closing && self.receive().await.is_ok() {}
            let _ = self.stream.shutdown().await;
            if self.state == State::Faulty {
                // A socket that is dropped with something unread loses what was sent last.
                let mut rest = (&mut self.stream).take(MAX_DRAINED_BYTES);
                let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, End>> {
        loop {
            // A peer that does not take its pongs is still heard.
            if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
                return Poll::Ready(Err(End::Gone));
            }
            match self.reader.next(self.limits.max_message_bytes) {
                Ok(Some(frame)) => {
                    if let Some(heard) = self.hear(frame) {
                        return Poll::Ready(heard);
                    }
                    continue;
                }
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Err(self.fail(end_after(fault)))),
            }
            let mut chunk = [MaybeUninit::uninit(); CHUNK_BYTES];
            let mut chunk = ReadBuf::uninit(&mut chunk);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut chunk)) {
                Ok(()) if !chunk.filled().is_empty() => self.reader.push(chunk.filled()),
                _ => return Poll::Ready(Err(End::Gone)),
            }
        }
    }

    /// Counts a frame; says what it means, if it is for whoever listens.
    fn hear(&mut self, frame: Frame) -> Option<Result<Message, End>> {
        if !self.spend(1) {
            return Some(Err(self.fail(End::close(close::TOO_FAST, TOO_MANY_FRAMES))));
        }
        match frame {
            Frame::Piece => None,
            Frame::Text(text) => Some(Ok(Message::Text(text))),
            Frame::Binary(_) => Some(Ok(Message::Binary)),
            Frame::Pong(payload) => Some(Ok(Message::Pong(payload))),
            // Behind a close frame nothing is said.
            Frame::Ping(_) if self.state == State::Closing => None,
            Frame::Ping(payload) => {
                self.pong = Some(payload);
                None
            }
            Frame::Close(code) => {
                self.state = State::ClosedByPeer(code);
                Some(Err(End::ClosedByPeer))
            }
        }
    }

    fn fail(&mut self, end: End) -> End {
        self.state = State::Faulty;
        end
    }

    /// Writes what is unsent, and the pong behind it.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.unsent.is_empty() {
                let Some(pong) = self.pong.take() else { break };
                frames::write(Opcode::Pong, &pong, &mut self.unsent);
            }
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.drain(..count);
            if self.unsent.is_empty() {
                self.unsent = Vec::new();
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx)
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

fn end_after(fault: Fault) -> End {
    match fault {
        Fault::TooLarge => End::close(close::TOO_LARGE, "the message is too large"),
        Fault::NotUtf8 => End::close(close::NOT_UTF8, "the text is not UTF-8"),
        Fault::Protocol(what) => End::close(close::PROTOCOL_ERROR, what),
    }
}
