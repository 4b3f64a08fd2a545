use axum::{extract::ConnectInfo, routing::get};
use bytes::Bytes;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::*;

const SHORT: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(20);

struct Listening {
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<()>,
    /// Says when an answer of `/large` is gone.
    freed: mpsc::UnboundedReceiver<()>,
}

struct Large(Vec<u8>, mpsc::UnboundedSender<()>);

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        let _ = self.1.send(());
    }
}

fn patient() -> Patience {
    Patience { handshake: PATIENCE, head: PATIENCE, idle: PATIENCE, stall: PATIENCE, farewell: SHORT }
}

fn limits() -> Limits {
    let patience = Patience { handshake: SHORT, head: SHORT, stall: SHORT, ..patient() };
    Limits { patience, ..Limits::new(64, Vec::new()) }
}

fn listening(tls: Option<ServerConfig>, limits: Limits) -> Listening {
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let (free, freed) = mpsc::unbounded_channel();
    let large = move || {
        let owner = Large(vec![0; 32 * 1024 * 1024], free.clone());
        async { Bytes::from_owner(owner) }
    };
    let router = Router::new()
        .route("/", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }))
        .route("/slow", get(|| sleep(SHORT)))
        .route("/large", get(large));
    let served = tokio::spawn(serve(listener, tls, router, limits, stop.clone()));
    Listening { address, stop, served, freed }
}

/// A server's configuration, and what a client needs to trust it.
fn tls() -> (ServerConfig, TlsConnector) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![made.cert.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into(),
        )
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server, TlsConnector::from(Arc::new(client)))
}

async fn dial(listening: &Listening) -> tokio::net::TcpStream {
    tokio::net::TcpStream::connect(listening.address).await.unwrap()
}

/// Writes `head` and reads until the other end closes.
async fn said(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &str) -> String {
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("the connection stays open").ok();
    String::from_utf8_lossy(&text).into_owned()
}

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_peer_that_never_ends_its_head_is_let_go() {
    let listening = listening(None, limits());
    let stream = dial(&listening).await;
    let began = tokio::time::Instant::now();
    let answer = said(stream, "GET / HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
    assert!(!answer.contains("200 OK"), "{answer}");
    assert!(began.elapsed() >= SHORT);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered_with_431() {
    let listening = listening(None, Limits { patience: patient(), ..limits() });
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "a".repeat(20_000));
    let answer = said(dial(&listening).await, &head).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn the_router_knows_its_peer_over_plain_http_and_over_tls() {
    let plain = listening(None, limits());
    let stream = dial(&plain).await;
    let own = stream.local_addr().unwrap().to_string();
    assert!(said(stream, REQUEST).await.ends_with(&own));

    let (server, client) = tls();
    let encrypted = listening(Some(server), limits());
    let stream = dial(&encrypted).await;
    let own = stream.local_addr().unwrap().to_string();
    let stream = client.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    assert!(said(stream, REQUEST).await.ends_with(&own));
}

#[tokio::test]
async fn silent_peers_hold_nobody_back_and_the_oldest_of_them_goes_first() {
    let (server, client) = tls();
    for tls in [None, Some(server)] {
        let limits = Limits { per_holder: 2, patience: patient(), ..limits() };
        let encrypted = tls.is_some();
        let listening = listening(tls, limits);
        let (mut first, _second) = (dial(&listening).await, dial(&listening).await);
        let stream = dial(&listening).await;
        let answer = if encrypted {
            let stream = client.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
            timeout(PATIENCE / 4, said(stream, REQUEST)).await
        } else {
            timeout(PATIENCE / 4, said(stream, REQUEST)).await
        };
        assert!(answer.expect("held back").contains("200 OK"));
        let closed = timeout(PATIENCE / 4, first.read(&mut [0])).await.expect("the oldest stays");
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }
}

#[tokio::test]
async fn what_is_not_tls_is_no_trouble_to_others() {
    let (server, client) = tls();
    let listening = listening(Some(server), limits());
    assert!(!said(dial(&listening).await, REQUEST).await.contains("200 OK"));
    let name = ServerName::try_from("localhost").unwrap();
    let stream = client.connect(name, dial(&listening).await).await.unwrap();
    assert!(said(stream, REQUEST).await.contains("200 OK"));
}

#[tokio::test]
async fn a_stop_waits_for_nobody_without_a_request() {
    let (server, client) = tls();
    for tls in [None, Some(server)] {
        let encrypted = tls.is_some();
        let listening = listening(tls, Limits { patience: patient(), ..limits() });
        let _silent = dial(&listening).await;
        let stream = dial(&listening).await;
        let mut held: Vec<Box<dyn Peer>> = Vec::new();
        if encrypted {
            held.push(Box::new(
                client.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap(),
            ));
        } else {
            held.extend([Box::new(stream) as Box<dyn Peer>, Box::new(dial(&listening).await)]);
        }
        for (peer, words) in held.iter_mut().zip([&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], HTTP2]) {
            peer.write_all(words).await.unwrap();
            peer.read_exact(&mut [0]).await.unwrap();
        }
        listening.stop.cancel();
        timeout(PATIENCE / 4, listening.served).await.expect("the stop waits for an idle peer").unwrap();
    }
}

#[tokio::test]
async fn an_idle_connection_outlives_the_time_of_a_head() {
    let listening = listening(None, limits());
    let mut stream = dial(&listening).await;
    let mut chunk = [0; 1024];
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut chunk).await.unwrap() > 0, "it was closed while idle");
        let closed = timeout(SHORT * 2, stream.read(&mut chunk)).await;
        assert!(closed.is_err(), "{closed:?}");
    }
    let begun = said(stream, "GET / HTTP/1.1\r\n").await;
    assert!(!begun.contains("200 OK"), "{begun}");
}

#[tokio::test]
async fn an_http2_connection_without_a_request_is_closed() {
    let listening = listening(None, limits());
    let mut stream = dial(&listening).await;
    stream.write_all(HTTP2).await.unwrap();
    timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("it stays open").ok();
}

#[tokio::test]
async fn who_does_not_read_an_answer_loses_the_connection() {
    let windowless = [&HTTP2[..24], SETTINGS_OF_SMALL_WINDOW, GET_LARGE].concat();
    for request in [&b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n"[..], &windowless] {
        let mut listening = listening(None, limits());
        let mut stream = dial(&listening).await;
        stream.write_all(request).await.unwrap();
        let freed = timeout(PATIENCE, listening.freed.recv()).await;
        freed.expect("the answer is held for a peer that does not read").unwrap();
    }
}

#[tokio::test]
async fn who_has_said_all_still_gets_the_answer() {
    let listening = listening(None, limits());
    let mut stream = dial(&listening).await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.contains("200 OK"), "{text}");
}

trait Peer: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Peer for T {}

/// The preface and empty settings.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Streams may be sent one byte.
const SETTINGS_OF_SMALL_WINDOW: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1];

/// HEADERS of stream 1, which end it: `GET /large` of `x`.
const GET_LARGE: &[u8] =
    &[0, 0, 13, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x04, 6, b'/', b'l', b'a', b'r', b'g', b'e', 0x41, 1, b'x'];
