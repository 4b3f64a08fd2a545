//! A TCP stream that breaks when its peer does not read: beneath TLS, HTTP and WebSockets alike. An upgrade
//! takes it away from the listener.

use std::{
    io::{self, IoSlice},
    net,
    os::fd::AsFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade::downcast};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{answer::PIECE, in_flight::Shared};
use crate::tls::TlsStream;

pub(super) struct Stream {
    tcp: TcpStream,
    /// Until an upgrade.
    shared: Option<Arc<Shared>>,
    patience: Duration,
    /// Runs while the peer takes less than it is given. Most never do, so it is made when needed.
    timer: Option<Pin<Box<Sleep>>>,
    /// What the peer took since the timer was set.
    taken: usize,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, shared: Arc<Shared>, patience: Duration) -> Self {
        Self { tcp, shared: Some(shared), patience, timer: None, taken: 0 }
    }

    /// Notes how much of `offered` was taken. A peer that takes little by little has the same time
    /// for each piece as one that takes none.
    fn note(
        &mut self,
        written: Poll<io::Result<usize>>,
        offered: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(count)) => {
                self.taken += count;
                if *count >= offered || self.taken >= PIECE {
                    (self.timer, self.taken) = (None, 0);
                }
                return written;
            }
            Poll::Ready(Err(_)) => return written,
            Poll::Pending => {}
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.patience)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

/// What carries a WebSocket: a stream, or TLS on it.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {
    /// Leaves the listener, and lets the runtime that calls watch the socket from now on.
    fn detach(&mut self) -> io::Result<()>;
}

impl Transport for Stream {
    fn detach(&mut self) -> io::Result<()> {
        self.tcp = TcpStream::from_std(net::TcpStream::from(self.tcp.as_fd().try_clone_to_owned()?))?;
        self.shared = None;
        Ok(())
    }
}

impl Transport for TlsStream<Stream> {
    fn detach(&mut self) -> io::Result<()> {
        self.io_mut().detach()
    }
}

/// Detaches what an upgrade leaves, and says what came already.
pub(crate) fn detach(upgraded: Upgraded) -> io::Result<(Box<dyn Transport>, Bytes)> {
    let (mut transport, early): (Box<dyn Transport>, _) = match downcast::<TokioIo<Stream>>(upgraded) {
        Ok(parts) => (Box::new(parts.io.into_inner()), parts.read_buf),
        Err(upgraded) => match downcast::<TokioIo<TlsStream<Stream>>>(upgraded) {
            Ok(parts) => (Box::new(parts.io.into_inner()), parts.read_buf),
            Err(_) => return Err(io::ErrorKind::Unsupported.into()),
        },
    };
    transport.detach()?;
    Ok((transport, early))
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        if let Some(shared) = &self.shared
            && buf.filled().len() > before
        {
            shared.heard(Instant::now());
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.note(written, buf.len(), cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.note(written, bufs.iter().map(|buf| buf.len()).sum(), cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::timeout,
    };

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);

    /// More than the buffers of two sockets hold.
    const LARGE: usize = 32 * 1024 * 1024;

    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (peer, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (Stream::new(accepted.unwrap().0, Arc::new(Shared::detached()), SHORT), peer.unwrap())
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_breaks_the_connection() {
        let (mut stream, _peer) = pair().await;
        let written =
            timeout(SHORT * 50, stream.write_all(&vec![0; LARGE])).await.expect("it waits for ever");
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_that_pauses_and_reads_on_keeps_it() {
        let (mut stream, mut peer) = pair().await;
        let reading = tokio::spawn(async move {
            let (mut chunk, mut read) = (vec![0; LARGE / 8], 0);
            while read < LARGE {
                tokio::time::sleep(SHORT / 4).await;
                let end = chunk.len().min(LARGE - read);
                read += peer.read_exact(&mut chunk[..end]).await.unwrap();
            }
        });
        stream.write_all(&vec![0; LARGE]).await.unwrap();
        reading.await.unwrap();
    }
}
