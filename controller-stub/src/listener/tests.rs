use axum::routing::get;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

use super::*;

const SHORT: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(20);

struct Listening {
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

fn limits() -> Limits {
    Limits { handshake: SHORT, head: SHORT, handshakes: 2 }
}

fn listening(tls: Option<ServerConfig>, limits: Limits) -> Listening {
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let router = Router::new()
        .route("/", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }));
    let served = tokio::spawn(serve(listener, tls, router, limits, stop.clone()));
    Listening { address, stop, served }
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
    let listening = listening(None, Limits::default());
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
async fn silent_handshakes_hold_others_back_no_longer_than_their_own_time() {
    let (server, client) = tls();
    let listening = listening(Some(server), limits());
    let (_first, _second) = (dial(&listening).await, dial(&listening).await);
    let began = tokio::time::Instant::now();
    let stream = dial(&listening).await;
    let name = ServerName::try_from("localhost").unwrap();
    let stream = timeout(PATIENCE, client.connect(name, stream)).await.expect("held back for good").unwrap();
    assert!(began.elapsed() >= SHORT / 2, "two handshakes are all that may be under way");
    assert!(said(stream, REQUEST).await.contains("200 OK"));
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
async fn a_stop_waits_for_nobody_who_has_said_nothing() {
    let (server, _) = tls();
    for tls in [None, Some(server)] {
        let patient = Limits { handshake: PATIENCE, head: PATIENCE, handshakes: 2 };
        let Listening { address, stop, served } = listening(tls, patient);
        let _silent = tokio::net::TcpStream::connect(address).await.unwrap();
        stop.cancel();
        timeout(PATIENCE / 4, served).await.expect("the stop waits for a silent peer").unwrap();
    }
}
