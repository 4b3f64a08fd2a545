//! The bytes of one Socket.IO connection, between its stream and the library that reads them: counts frames
//! and their sizes, closes with the code that says why, and ends the connection when its link is told to.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use aio_protocol::wire::close;
use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    runtime::Handle,
    time::timeout,
};

use super::{
    frames::{Scanner, Seen},
    link::{Ending, Link},
};
use crate::listener::Transport;

/// The largest message that is taken.
pub(super) const MAX_MESSAGE_BYTES: u64 = 1_000_000;

/// The largest of whoever has not joined yet.
pub(super) const MAX_STRANGER_BYTES: u64 = 64 * 1024;

/// Engine.IO's own goodbye, as the library sends it: AIWM closes the WebSocket without one.
const GOODBYE: [u8; 3] = [0x81, 0x01, b'1'];

/// How long the other end may take to read what was sent last.
const LINGER: Duration = Duration::from_secs(2);

/// What is read and dropped meanwhile.
const MAX_DRAINED_BYTES: u64 = 8 * 1024 * 1024;

pub(super) struct Carriage {
    /// Until this is dropped.
    stream: Option<Box<dyn Transport>>,
    early: Bytes,
    link: Arc<Link>,
    heard: Scanner,
    said: Scanner,
    /// The close frame behind which nothing is said.
    parting: Option<Bytes>,
}

impl Carriage {
    pub(super) fn new(stream: Box<dyn Transport>, early: &[u8], link: Arc<Link>) -> Self {
        // A copy: what was read lies in the buffer that the whole request came in.
        let early = Bytes::copy_from_slice(early);
        let (heard, said) = Default::default();
        Self { stream: Some(stream), early, link, heard, said, parting: None }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut (dyn Transport + 'static)>> {
        self.stream.as_deref_mut().map(Pin::new).ok_or_else(ended)
    }

    /// Looks at what came, and says with which code the connection has to be closed.
    fn look(&mut self, mut bytes: &[u8]) -> Option<u16> {
        let Self { heard, link, .. } = self;
        while !bytes.is_empty() {
            let (taken, seen) = heard.take(bytes);
            match seen {
                Seen::Frame { bytes }
                    if bytes > MAX_MESSAGE_BYTES || (bytes > MAX_STRANGER_BYTES && !link.has_joined()) =>
                {
                    return Some(close::TOO_LARGE);
                }
                Seen::Frame { .. } if !link.spend(1) => return Some(close::TOO_FAST),
                Seen::Head(head) if link.joins_again(head) => link.end(Ending::HangUp),
                _ => {}
            }
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        None
    }

    /// Writes what is left of the close frame.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(mut parting) = self.parting.clone().filter(|it| it.has_remaining()) {
            let count = ready!(self.stream()?.poll_write(cx, &parting))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            parting.advance(count.min(parting.len()));
            self.parting = Some(parting);
        }
        Poll::Ready(Ok(()))
    }

    /// How many of these bytes come before the library's goodbye, as far as they hold one.
    fn before_goodbye(&self, bytes: &[u8]) -> usize {
        let (mut said, mut at) = (self.said.clone(), 0);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if said.is_between_frames() && rest.starts_with(&GOODBYE) {
                break;
            }
            at += said.take(rest).0;
        }
        at
    }
}

fn ended() -> io::Error {
    io::Error::other("the connection is ended here")
}

impl AsyncRead for Carriage {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.parting.is_some() || self.link.watch_ending(cx.waker()).is_some() {
            return Poll::Ready(Err(ended()));
        }
        let before = buf.filled().len();
        if self.early.is_empty() {
            ready!(self.stream()?.poll_read(cx, buf))?;
        } else {
            let length = self.early.len().min(buf.remaining());
            let early = self.early.split_to(length);
            buf.put_slice(&early);
        }
        let came = buf.filled().get(before..).unwrap_or_default();
        let Some(code) = self.look(came) else { return Poll::Ready(Ok(())) };
        buf.set_filled(before);
        let [high, low] = code.to_be_bytes();
        self.parting = Some(Bytes::copy_from_slice(&[0x88, 0x02, high, low]));
        // What does not go out now does with the next write.
        let _ = self.poll_part(cx)?;
        Poll::Ready(Err(ended()))
    }
}

impl AsyncWrite for Carriage {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.link.ending() == Some(Ending::Cut) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.parting.is_some() {
            ready!(self.poll_part(cx))?;
            return Poll::Ready(Ok(buf.len()));
        }
        let length = self.before_goodbye(buf);
        if length == 0 && !buf.is_empty() {
            return Poll::Ready(Ok(GOODBYE.len()));
        }
        let offered = buf.get(..length).unwrap_or_default();
        let count = ready!(self.stream()?.poll_write(cx, offered))?;
        let mut rest = offered.get(..count).unwrap_or_default();
        while !rest.is_empty() {
            let (taken, _) = self.said.take(rest);
            rest = rest.get(taken..).unwrap_or_default();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_part(cx))?;
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_part(cx))?;
        self.stream()?.poll_shutdown(cx)
    }
}

impl Drop for Carriage {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        let (Ok(runtime), true) = (Handle::try_current(), self.link.ending() != Some(Ending::Cut)) else {
            return;
        };
        // A socket that is dropped with something unread loses what was sent last.
        runtime.spawn(timeout(LINGER, async move {
            let _ = stream.shutdown().await;
            let mut rest = stream.take(MAX_DRAINED_BYTES);
            let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
        }));
    }
}
