//! TLS: a private authority that nodes pin, a given certificate that is reloaded, and plain HTTP
//! that stays on this machine.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use aio_protocol::{claims::NodeClaims, error_code::ErrorCode, release::Checksum, time::Timestamp};
use controller_stub::{config::Config, serve::Server};
use futures_util::StreamExt;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio_tungstenite::{
    Connector, connect_async_tls_with_config,
    tungstenite::{client::ClientRequestBuilder, http::Uri},
};

use crate::{
    delivery::now,
    harness::{self, Controller, eventually, http},
};

fn authority(controller: &Controller) -> PathBuf {
    controller.config.data_dir.join("tls/authority.pem")
}

fn fingerprint(certificate: &CertificateDer<'_>) -> Checksum {
    use sha2::{Digest, Sha256};
    Checksum::from_hex(&hex::encode(Sha256::digest(certificate))).unwrap()
}

/// Trusts one authority and nothing else.
fn trusting(certificate: &Path) -> ClientConfig {
    harness::install_provider();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

fn client(certificate: &Path) -> reqwest::Client {
    reqwest::Client::builder().no_proxy().tls_backend_preconfigured(trusting(certificate)).build().unwrap()
}

#[tokio::test]
async fn a_private_authority_is_what_the_controller_is_trusted_by_and_what_its_tokens_name() {
    let controller = Controller::start_with(|config| config.tls_self_signed = true).await;
    assert!(controller.url().starts_with("https://127.0.0.1:"), "{}", controller.url());
    let file = authority(&controller);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let stranger = http().get(format!("{}/healthz", controller.url())).send().await;
    assert!(stranger.is_err(), "trusted by the operating system's roots");

    let owner = controller.owner_of("acme").await.through(client(&file));
    let node = owner.add_node("gpu-01").await;
    let (status, token) = owner.post(&format!("/nodes/{node}/token"), json!({})).await;
    assert_eq!(status, 201, "{token}");
    let claims = NodeClaims::read_unverified(token["token"].as_str().unwrap()).unwrap();
    assert_eq!(claims.ca, Some(fingerprint(&CertificateDer::from_pem_file(&file).unwrap())));
    assert_eq!(claims.api, controller.url());
    assert!(claims.ctl.starts_with("wss://127.0.0.1:"), "{}", claims.ctl);
    let script = token["installScript"].as_str().unwrap();
    let pem = fs::read_to_string(&file).unwrap();
    let (certificate, key) = pem.split_at(pem.find("-----BEGIN PRIVATE KEY").unwrap());
    assert!(script.contains(certificate), "{script}");
    assert!(!script.contains(key.lines().nth(1).unwrap()), "the authority's key left the controller");

    // The built-in NOTI hears of it over TLS, too.
    owner.await_events(&node, &["node.registered"]).await;
}

#[tokio::test]
async fn a_worker_is_greeted_over_wss_and_sees_the_authority_in_the_handshake() {
    let controller = Controller::start_with(|config| config.tls_self_signed = true).await;
    let file = authority(&controller);
    let owner = controller.owner_of("acme").await.through(client(&file));
    let node = owner.add_node("gpu-01").await;
    let (_, token) = owner.post(&format!("/nodes/{node}/token"), json!({})).await;
    let url = format!("wss://{}/ws/node", controller.address());
    let request = ClientRequestBuilder::new(url.parse::<Uri>().unwrap())
        .with_sub_protocol("aio.node.v1")
        .with_header("Authorization", format!("Bearer {}", token["token"].as_str().unwrap()));
    let connector = Connector::Rustls(Arc::new(trusting(&file)));
    let (mut socket, _) = connect_async_tls_with_config(request, None, true, Some(connector)).await.unwrap();
    let greeting = socket.next().await.unwrap().unwrap();
    assert!(greeting.to_text().unwrap().contains("connection_ack"), "{greeting}");
    let tokio_tungstenite::MaybeTlsStream::Rustls(stream) = socket.get_ref() else { panic!("no TLS") };
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1], CertificateDer::from_pem_file(&file).unwrap());
}

#[tokio::test]
async fn the_authority_outlives_a_restart_and_a_broken_one_is_not_replaced() {
    let mut controller = Controller::start_with(|config| config.tls_self_signed = true).await;
    let file = authority(&controller);
    let (address, before) = (controller.address(), fs::read(&file).unwrap());
    controller.stop().await;
    controller.start_again(address).await;
    assert_eq!(fs::read(&file).unwrap(), before);
    assert!(client(&file).get(format!("{}/healthz", controller.url())).send().await.is_ok());
    controller.stop().await;

    let other = KeyPair::generate().unwrap().serialize_pem();
    let certificate = String::from_utf8(before.clone()).unwrap();
    let (certificate, _) = certificate.split_at(certificate.find("-----BEGIN PRIVATE KEY").unwrap());
    for broken in [String::new(), "nonsense".into(), certificate.into(), format!("{certificate}{other}")] {
        fs::write(&file, &broken).unwrap();
        let error = Server::start(controller.config.clone()).await.err().expect("it started");
        assert_eq!(error.code(), ErrorCode::CertificateInvalid, "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), broken);
    }
}

/// A certificate of its own for `name`, and its key, written to `folder`.
fn write_pair(folder: &Path, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
    let mut params = CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let paths = (folder.join("certificate.pem"), folder.join("key.pem"));
    fs::write(&paths.1, key.serialize_pem()).unwrap();
    fs::write(&paths.0, certificate.pem()).unwrap();
    paths
}

/// Whether the server at `url` shows the certificate that lies at `path` now.
async fn shows(url: &str, path: &Path) -> Result<(), String> {
    // A new client, so a new connection.
    client(path).get(format!("{url}/healthz")).send().await.map(drop).map_err(|error| format!("{error:?}"))
}

#[tokio::test]
async fn a_given_pair_is_reloaded_when_it_changes_and_a_broken_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let pair = write_pair(folder.path(), "aiwm.example", |_| {});
    let first = folder.path().join("first.pem");
    fs::copy(&pair.0, &first).unwrap();
    let controller = Controller::start_with(|config| config.tls_files = Some(pair.clone())).await;
    let url = controller.url();
    shows(&url, &first).await.unwrap();

    fs::write(&pair.1, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let began = std::time::Instant::now();
    // Long enough for the controller to have looked twice, which is all that a reload takes.
    while began.elapsed() < std::time::Duration::from_secs(5) {
        shows(&url, &first).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }

    write_pair(folder.path(), "aiwm.example", |_| {});
    eventually("the new certificate", async || shows(&url, &pair.0).await).await;
    assert!(shows(&url, &first).await.is_err());
}

#[tokio::test]
async fn a_hangup_reloads_at_once_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let pair = write_pair(folder.path(), "aiwm.example", |_| {});
    let flags = ["--tls-cert", pair.0.to_str().unwrap(), "--tls-key", pair.1.to_str().unwrap()];
    let served = crate::program::serve_with(&flags, &folder.path().join("data"));
    shows(&served.url, &pair.0).await.unwrap();
    write_pair(folder.path(), "aiwm.example", |_| {});
    let pid = served.child.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    eventually("the new certificate", async || shows(&served.url, &pair.0).await).await;
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_is_refused_with_its_code() {
    harness::install_provider();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = write_pair(folder.path(), "aiwm.example", |_| {});
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (text, other) =
        (file("text.pem", "no PEM"), file("other.pem", &KeyPair::generate().unwrap().serialize_pem()));
    let garbage = file("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let nowhere = folder.path().join("nowhere.pem");
    for (pair, code) in [
        ((&nowhere, &key), ErrorCode::FileFailed),
        ((&certificate, &nowhere), ErrorCode::FileFailed),
        ((&text, &key), ErrorCode::CertificateInvalid),
        ((&garbage, &key), ErrorCode::CertificateInvalid),
        ((&certificate, &text), ErrorCode::CertificateInvalid),
        ((&certificate, &other), ErrorCode::CertificateInvalid),
        ((&certificate, &certificate), ErrorCode::CertificateInvalid),
    ] {
        let mut config = Config::new(folder.path().join("data"));
        config.listen = ([127, 0, 0, 1], 0).into();
        config.tls_files = Some((pair.0.clone(), pair.1.clone()));
        let error = Server::start(config).await.err().unwrap_or_else(|| panic!("{pair:?} was taken"));
        assert_eq!(error.code(), code, "{pair:?}: {error}");
    }
}

#[test]
fn a_certificate_that_has_ended_or_is_of_another_name_is_warned_of_and_served() {
    let folder = tempfile::tempdir().unwrap();
    let pair = write_pair(folder.path(), "aiwm.example", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let flags = [
        "--tls-cert",
        pair.0.to_str().unwrap(),
        "--tls-key",
        pair.1.to_str().unwrap(),
        "--public-url",
        "https://else.example",
    ];
    let log = crate::program::log_of_start(&flags, &folder.path().join("data"));
    assert!(log.contains("the TLS certificate ended at 2021-01-01T00:00:00.000Z"), "{log}");
    assert!(log.contains("is not for else.example"), "{log}");
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_an_alarm_of_operators_until_another_is_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let ends = Timestamp::from_millis((now() + 7 * 86_400) * 1000).to_string();
    let part = |range: std::ops::Range<usize>| ends[range].parse::<u16>().unwrap();
    let pair = write_pair(folder.path(), "aiwm.example", |params| {
        let (month, day) = (u8::try_from(part(5..7)).unwrap(), u8::try_from(part(8..10)).unwrap());
        params.not_after = date_time_ymd(part(0..4).into(), month, day);
    });
    let controller = Controller::start_with(|config| {
        config.tls_files = Some(pair.clone());
        config.alarm_interval = crate::alarms::SOON;
    })
    .await;
    let of = async |role: &str| {
        let user = controller.user("acme", role).await.through(client(&pair.0));
        user.get("/alarms").await.1["data"].as_array().unwrap().clone()
    };
    let alarm =
        eventually("an alarm", async || of("universe.owner").await.pop().ok_or_else(|| "none".to_owned()))
            .await;
    assert_eq!(alarm["kind"], "certificate_ending", "{alarm}");
    assert!(alarm["reason"].as_str().unwrap().starts_with("the TLS certificate ends at "), "{alarm}");
    assert_eq!(of("organization.owner").await, [] as [serde_json::Value; 0]);
    write_pair(folder.path(), "aiwm.example", |_| {});
    eventually("no alarm", async || {
        let user = controller.user("acme", "universe.owner").await.through(client(&pair.0));
        let answer = user.request(reqwest::Method::GET, "/alarms").send().await;
        // Until the new certificate is served, the client does not trust the old one.
        let answer = answer.map_err(|error| error.to_string())?.text().await.unwrap();
        if answer.contains("\"data\":[]") { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test]
async fn plain_http_leaves_this_machine_only_when_somebody_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::new(folder.path().join("data"));
    config.listen = ([0, 0, 0, 0], 0).into();
    let error = Server::start(config.clone()).await.err().expect("it started");
    assert_eq!(error.code(), ErrorCode::InsecureListen);
    assert!(!config.data_dir.exists(), "something was left behind");

    let log = crate::program::log_of_start(&["--listen", "0.0.0.0:0", "--insecure-http"], &config.data_dir);
    assert!(log.contains("plain http is served to other machines (insecure_http)"), "{log}");

    config.tls_self_signed = true;
    Server::start(config).await.unwrap().shutdown().await;
}

#[tokio::test]
async fn a_noti_behind_a_private_authority_is_trusted_by_the_file_that_is_named() {
    let noti = Controller::start_with(|config| config.tls_self_signed = true).await;
    let url = format!("https://localhost:{}", noti.address().port());
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = write_pair(folder.path(), "client.example", |_| {});
    let controller = Controller::start_with(|config| {
        config.noti_service_url = Some(url.parse().unwrap());
        config.noti_ca_file = Some(authority(&noti));
        config.noti_client_files = Some((certificate.clone(), key.clone()));
    })
    .await;
    let node = controller.owner_of("acme").await.add_node("gpu").await;
    let reader = noti.owner_of("acme").await.through(client(&authority(&noti)));
    reader.await_events(&node, &["node.registered"]).await;

    let elsewhere = tempfile::tempdir().unwrap();
    let (_, other) = write_pair(elsewhere.path(), "other.example", |_| {});
    let mut config = controller.config.clone();
    let refused = async |config: &Config| Server::check(config).await.unwrap_err().code();
    config.noti_client_files = Some((certificate.clone(), other));
    assert_eq!(refused(&config).await, ErrorCode::CertificateInvalid);
    config.noti_client_files = Some((certificate, key.clone()));
    Server::check(&config).await.unwrap();
    config.noti_ca_file = Some(key);
    assert_eq!(refused(&config).await, ErrorCode::CertificateInvalid);
    config.noti_ca_file = Some(folder.path().join("none.pem"));
    assert_eq!(refused(&config).await, ErrorCode::FileFailed);
}

/// A NOTI that asks for the certificate of `client`, and says the first line of what it is sent.
async fn demanding_noti(folder: &Path, client: &Path) -> (u16, tokio::task::JoinHandle<String>) {
    let (certificate, key) = write_pair(folder, "noti.example", |_| {});
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(client).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
        let mut lines = tokio::io::BufReader::new(stream).lines();
        lines.next_line().await.unwrap().unwrap()
    });
    (port, served)
}

#[tokio::test]
async fn a_noti_that_asks_for_a_certificate_is_shown_it() {
    harness::install_provider();
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (certificate, key) = write_pair(ours.path(), "controller.example", |_| {});
    let (port, served) = demanding_noti(theirs.path(), &certificate).await;
    let controller = Controller::start_with(|config| {
        config.noti_service_url = Some(format!("https://127.0.0.1:{port}/noti").parse().unwrap());
        config.noti_ca_file = Some(theirs.path().join("certificate.pem"));
        config.noti_client_files = Some((certificate, key));
    })
    .await;
    controller.owner_of("acme").await.add_node("gpu").await;
    assert_eq!(served.await.unwrap(), "POST /noti/events HTTP/1.1");
}
