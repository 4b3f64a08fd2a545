//! Whom the daemon trusts: the authority that its token names, or the operator's own, and what it
//! says of all others.

use std::sync::Arc;

use aio_protocol::snapshot::SessionState;
use aio_worker::session::machine::Timings;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{
    controller::Controller,
    daemon::{Daemon, folder_with, token_with},
};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Ends TLS before the controller at `url`, with a certificate of this authority. Says the new address.
async fn ends_tls_before(url: &str, authority: &Authority) -> String {
    aio_host::tls::install_provider();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let chain = vec![params.signed_by(&key, authority).unwrap().der().clone(), authority.der().clone()];
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let behind = url.trim_start_matches("ws://").split('/').next().unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                let mut plain = TcpStream::connect(behind).await?;
                tokio::io::copy_bidirectional(&mut stream, &mut plain).await
            });
        }
    });
    format!("wss://{address}/ws/node")
}

fn token_naming(url: &str, authority: &Authority) -> String {
    let digest: String = Sha256::digest(authority.der()).iter().map(|byte| format!("{byte:02x}")).collect();
    token_with(url, "pinned", |claims| claims["ca"] = format!("sha256:{digest}").into())
}

#[tokio::test]
async fn a_worker_trusts_the_authority_that_its_token_names_and_comes_back_to_it() {
    let mut controller = Controller::start().await;
    let own = authority();
    let url = ends_tls_before(&controller.url, &own).await;
    let daemon = Daemon::on(&folder_with(&token_naming(&url, &own)), Timings::default(), None);
    let (peer, _) = controller.welcomed(30_000).await;
    drop(peer);
    let (mut peer, _) = controller.welcomed(30_000).await;
    peer.heartbeat().await;
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.sessions == 2).await;
    assert_eq!(snapshot.controller, url);
}

#[tokio::test]
async fn another_authority_is_refused_by_its_code_until_a_token_names_it() {
    let mut controller = Controller::start().await;
    let (own, other) = (authority(), authority());
    let url = ends_tls_before(&controller.url, &other).await;
    let daemon = Daemon::on(&folder_with(&token_naming(&url, &own)), Timings::default(), None);
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.code.is_some()).await;
    assert_eq!(snapshot.session.code.as_deref(), Some("CA_MISMATCH"));
    assert_eq!(snapshot.session.state, SessionState::Waiting);
    assert!(snapshot.session.detail.contains("another authority"), "{}", snapshot.session.detail);
    daemon.replace_token(&token_naming(&url, &other));
    controller.welcomed(30_000).await;
}

#[tokio::test]
async fn an_authority_of_the_operators_is_read_when_it_is_needed_and_again_when_it_was_wrong() {
    let mut controller = Controller::start().await;
    let company = authority();
    let url = ends_tls_before(&controller.url, &company).await;
    let folder = folder_with(&token_with(&url, "first", |_| {}));
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(folder.path().join("config.toml"), format!("ca_file = \"{}\"", ca_file.display()))
        .unwrap();
    std::fs::write(&ca_file, authority().pem()).unwrap();
    let daemon = Daemon::on(&folder, Timings::default(), None);
    let snapshot = daemon.snapshot(|snapshot| snapshot.session.code.is_some()).await;
    assert_eq!(snapshot.session.code.as_deref(), Some("TLS_FAILED"));
    std::fs::write(&ca_file, company.pem()).unwrap();
    // Another token is tried at once; the wait after a refusal is half a minute.
    daemon.replace_token(&token_with(&url, "second", |_| {}));
    controller.welcomed(30_000).await;
}
