//! TLS on a stream, as its server. Keeps no buffer while nothing is under way: rustls's own session
//! keeps 4 KiB of each connection for as long as it is open, and a fleet's are open for months.
//! What is encrypted how, and who is let in, is rustls's business.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{
    ServerConfig,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at once.
const CHUNK_BYTES: usize = 4096;

/// The longest content of a record, and more than encryption adds to it.
const RECORD_BYTES: usize = 16 * 1024;
const OVERHEAD_BYTES: usize = 256;

/// What may wait to become a record or a message of the handshake.
const MAX_INCOMING_BYTES: usize = 64 * 1024;

pub(crate) struct TlsStream<S> {
    io: S,
    session: UnbufferedServerConnection,
    /// Encrypted bytes that came and are no whole record yet.
    incoming: Vec<u8>,
    /// Decrypted bytes that were not read yet.
    plain: Vec<u8>,
    /// Encrypted bytes that the peer has not taken yet.
    outgoing: Vec<u8>,
    /// The peer says nothing more.
    ended: bool,
    /// This end says nothing more.
    closed: bool,
}

/// What to encrypt once the session can.
enum Out<'a> {
    Nothing,
    Data(&'a [u8]),
    Farewell,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Shakes hands.
    pub(crate) async fn accept(config: Arc<ServerConfig>, io: S) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let (incoming, plain, outgoing) = (Vec::new(), Vec::new(), Vec::new());
        let mut stream = Self { io, session, incoming, plain, outgoing, ended: false, closed: false };
        poll_fn(|cx| {
            while stream.session.is_handshaking() {
                ready!(stream.poll_more(cx))?;
                if stream.ended && stream.session.is_handshaking() {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
            }
            // What the peer has not taken of the tickets goes out with what is read or written next.
            match stream.poll_drain(cx) {
                Poll::Pending => Poll::Ready(Ok(())),
                drained => drained,
            }
        })
        .await?;
        Ok(stream)
    }

    /// The stream beneath.
    pub(crate) fn io_mut(&mut self) -> &mut S {
        &mut self.io
    }

    /// Reads more of what the peer encrypted, and processes it.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The handshake's and the session's own answers. A peer that does not take them is still heard.
        if let Poll::Ready(Err(error)) = self.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        let mut chunk = [MaybeUninit::uninit(); CHUNK_BYTES];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut chunk))?;
        if chunk.filled().is_empty() {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        if self.incoming.len() > MAX_INCOMING_BYTES {
            return Poll::Ready(Err(io::Error::other("the peer's message does not end")));
        }
        self.incoming.extend_from_slice(chunk.filled());
        let processed = self.process(Out::Nothing);
        if processed.is_err() {
            // The peer is told why, if it listens.
            let _ = self.poll_drain(cx);
        }
        Poll::Ready(processed.map(drop))
    }

    /// Processes what came, then encrypts `out`, and says how many bytes of it.
    fn process(&mut self, out: Out<'_>) -> io::Result<usize> {
        let Self { session, incoming, plain, outgoing, ended, .. } = self;
        let mut failed = None;
        loop {
            let UnbufferedStatus { discard, state } = session.process_tls_records(incoming);
            let done = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        plain.extend_from_slice(record.map_err(io::Error::other)?.payload);
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(outgoing, 0, |room| {
                        data.encode(room).map_err(|error| match error {
                            EncodeError::InsufficientSize(it) => Some(it.required_size),
                            EncodeError::AlreadyEncoded => None,
                        })
                    })?;
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    *ended = true;
                    None
                }
                Ok(ConnectionState::WriteTraffic(mut traffic)) => Some(match out {
                    Out::Nothing => 0,
                    Out::Data(data) => {
                        let data = data.get(..RECORD_BYTES).unwrap_or(data);
                        append(outgoing, data.len() + OVERHEAD_BYTES, |room| {
                            traffic.encrypt(data, room).map_err(too_small)
                        })?;
                        data.len()
                    }
                    Out::Farewell => {
                        append(outgoing, OVERHEAD_BYTES, |room| {
                            traffic.queue_close_notify(room).map_err(too_small)
                        })?;
                        0
                    }
                }),
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => Some(0),
                Ok(_) => return Err(io::Error::other("early data came, and none is taken")),
                // The next round has the alert for the peer.
                Err(error) if failed.is_none() => {
                    failed = Some(error);
                    None
                }
                Err(_) => Some(0),
            };
            if failed.is_some() {
                incoming.clear();
            } else {
                incoming.drain(..discard);
            }
            if let Some(count) = done {
                if incoming.is_empty() {
                    *incoming = Vec::new();
                }
                return failed
                    .map_or(Ok(count), |error| Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
    }

    /// Gives the peer what is encrypted.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.outgoing))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.drain(..count);
        }
        self.outgoing = Vec::new();
        Poll::Ready(Ok(()))
    }
}

fn too_small(error: EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(it) => Some(it.required_size),
        EncryptError::EncryptExhausted => None,
    }
}

/// Lets `fill` add to `bytes`, and gives it more room when it asks for it.
fn append(
    bytes: &mut Vec<u8>,
    mut room: usize,
    mut fill: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> io::Result<()> {
    let start = bytes.len();
    loop {
        bytes.resize(start + room, 0);
        let filled = fill(bytes.get_mut(start..).unwrap_or_default());
        match filled {
            Ok(count) => {
                bytes.truncate(start + count);
                return Ok(());
            }
            Err(Some(required)) if required > room => room = required,
            Err(_) => {
                bytes.truncate(start);
                return Err(io::Error::other("the session encrypts no more"));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.plain.is_empty() && !self.ended {
            ready!(self.poll_more(cx))?;
        }
        let count = self.plain.len().min(buf.remaining());
        buf.put_slice(self.plain.get(..count).unwrap_or_default());
        self.plain.drain(..count);
        if self.plain.is_empty() {
            self.plain = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_drain(cx))?;
        let count = self.process(Out::Data(buf))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match self.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.closed, true) {
            self.process(Out::Farewell)?;
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::{
        ClientConfig, RootCertStore,
        pki_types::{PrivateKeyDer, ServerName},
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_rustls::TlsConnector;

    use super::*;

    fn configs(
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_protocol_versions(versions).with_no_client_auth();
        let client = ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots);
        let server = server.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        (Arc::new(server), Arc::new(client.with_no_client_auth()))
    }

    /// Says `sizes` of bytes to a server over a pipe of `width` bytes, which says them back and closes.
    async fn echo(versions: &[&'static rustls::SupportedProtocolVersion], width: usize, sizes: &[usize]) {
        let (server, client) = configs(versions);
        let (near, far) = duplex(width);
        let serving = tokio::spawn(async move {
            let mut stream = TlsStream::accept(server, far).await.unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.unwrap();
            assert_eq!(stream.plain.capacity() + stream.incoming.capacity(), 0, "it keeps a buffer");
            stream.write_all(&heard).await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(stream.outgoing.capacity(), 0, "it keeps a buffer");
        });
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(client).connect(name, near).await.unwrap();
        let mut said = Vec::new();
        for (index, size) in sizes.iter().enumerate() {
            let bytes = vec![u8::try_from(index % 251).unwrap(); *size];
            stream.write_all(&bytes).await.unwrap();
            stream.flush().await.unwrap();
            said.extend(bytes);
        }
        stream.shutdown().await.unwrap();
        let mut heard = Vec::new();
        // An end without a farewell is an error to this client.
        stream.read_to_end(&mut heard).await.unwrap();
        assert!(heard == said, "{} of {} bytes came back", heard.len(), said.len());
        serving.await.unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_is_said_comes_back_however_narrow_the_way(
            is_new: bool,
            width in prop_oneof![1_usize..64, 1_000_usize..70_000],
            sizes in prop::collection::vec(prop_oneof![0_usize..100, 16_000_usize..40_000], 0..6),
        ) {
            let versions = if is_new { &[&rustls::version::TLS13] } else { &[&rustls::version::TLS12] };
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(echo(versions, width, &sizes));
        }
    }

    #[tokio::test]
    async fn a_peer_that_speaks_no_tls_is_told_so_and_ends() {
        let (server, _) = configs(&[&rustls::version::TLS13]);
        let (mut near, far) = duplex(1024);
        near.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        assert!(TlsStream::accept(server.clone(), far).await.is_err());
        let mut alert = Vec::new();
        near.read_to_end(&mut alert).await.unwrap();
        assert_eq!(alert.first(), Some(&21), "{alert:?} is no alert");
        let (near, far) = duplex(1024);
        drop(near);
        assert!(TlsStream::accept(server, far).await.is_err(), "it waits for nobody");
    }
}
