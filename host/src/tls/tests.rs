use std::{io, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ClientConnection, ServerConfig, ServerConnection,
    pki_types::{PrivatePkcs8KeyDer, ServerName},
};
use sha2::{Digest, Sha256};

use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn fingerprint_of(authority: &Authority) -> Checksum {
    let digest = Sha256::digest(authority.der());
    Checksum::from_hex(&digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()).unwrap()
}

/// A server with a certificate of `signer`, which presents `chain` behind it.
fn server(
    signer: &Authority,
    chain: &[&Authority],
    change: impl FnOnce(&mut CertificateParams),
) -> Arc<ServerConfig> {
    install_provider();
    let mut params =
        CertificateParams::new(vec!["aiwm.example".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])
            .unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, signer).unwrap();
    let chain = std::iter::once(leaf.der().clone())
        .chain(chain.iter().map(|authority| authority.der().clone()))
        .collect();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key.into()).unwrap())
}

/// A handshake in memory, and what the client objects to, wrapped as a socket wraps it.
fn shake(trust: &Trust, server: &Arc<ServerConfig>, host: &str) -> Result<(), Failure> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = ClientConnection::new(client_config(trust).unwrap(), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    let refused = |error: rustls::Error| explain(&io::Error::new(io::ErrorKind::InvalidData, error)).unwrap();
    while client.is_handshaking() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets().unwrap();
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets().map_err(refused)?;
        }
    }
    Ok(())
}

fn pinned(fingerprint: Checksum, hosts: &[&str]) -> Trust {
    let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
    Trust { pin: Some(PinnedAuthority { fingerprint, hosts }), ca_file: None }
}

#[test]
fn the_pinned_authority_is_trusted_by_name_and_by_address() {
    let own = authority();
    let trust = pinned(fingerprint_of(&own), &["AIWM.example", "127.0.0.1", "[::1]"]);
    for host in ["aiwm.example", "127.0.0.1", "::1"] {
        shake(&trust, &server(&own, &[&own], |_| {}), host)
            .unwrap_or_else(|trouble| panic!("{host}: {trouble:?}"));
    }
}

#[test]
fn another_authority_is_told_apart_from_every_other_trouble() {
    let (own, other) = (authority(), authority());
    let trust = pinned(fingerprint_of(&own), &["aiwm.example"]);
    for (what, server) in
        [("another one", server(&other, &[&other], |_| {})), ("none at all", server(&own, &[], |_| {}))]
    {
        assert_eq!(shake(&trust, &server, "aiwm.example").unwrap_err().code, ErrorCode::CaMismatch, "{what}");
    }
    // To show the authority is not to be of it.
    let borrowed = server(&other, &[&own], |_| {});
    assert_eq!(shake(&trust, &borrowed, "aiwm.example").unwrap_err().code, ErrorCode::TlsFailed);
}

#[test]
fn name_and_dates_count_under_a_pin_too_and_are_told_in_words() {
    let own = authority();
    let trust = pinned(fingerprint_of(&own), &["aiwm.example", "other.example"]);
    let good = server(&own, &[&own], |_| {});
    let name = shake(&trust, &good, "other.example").unwrap_err();
    assert_eq!(name.code, ErrorCode::TlsFailed);
    assert!(
        name.message.contains("aiwm.example") && name.message.contains("not for other.example"),
        "{}",
        name.message
    );
    for (from, to, words) in
        [(2020, 2021, "ended at 2021-01-01"), (2990, 2999, "not valid before 2990-01-01")]
    {
        let server = server(&own, &[&own], |params| {
            (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        });
        let trouble = shake(&trust, &server, "aiwm.example").unwrap_err();
        assert_eq!(trouble.code, ErrorCode::TlsFailed);
        assert!(trouble.message.contains(words) && trouble.message.contains("clock"), "{}", trouble.message);
    }
}

#[test]
fn a_pin_says_nothing_of_other_hosts_and_the_operators_file_does() {
    let (own, company) = (authority(), authority());
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("company.pem");
    std::fs::write(&ca_file, company.pem()).unwrap();
    let release_server = server(&company, &[], |_| {});

    let mut trust = pinned(fingerprint_of(&own), &["controller.example"]);
    let unknown = shake(&trust, &release_server, "aiwm.example").unwrap_err();
    assert_eq!(unknown.code, ErrorCode::TlsFailed);
    trust.ca_file = Some(ca_file.clone());
    shake(&trust, &release_server, "aiwm.example").unwrap();
    // The operator's authorities are none of the controller's.
    trust = Trust { ca_file: Some(ca_file), ..pinned(fingerprint_of(&own), &["aiwm.example"]) };
    assert_eq!(shake(&trust, &release_server, "aiwm.example").unwrap_err().code, ErrorCode::CaMismatch);
}

#[test]
fn without_a_pin_the_operators_file_is_enough() {
    let company = authority();
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("company.pem");
    std::fs::write(&ca_file, company.pem()).unwrap();
    let trust = Trust { pin: None, ca_file: Some(ca_file) };
    shake(&trust, &server(&company, &[], |_| {}), "aiwm.example").unwrap();
    let stranger = shake(&trust, &server(&authority(), &[], |_| {}), "aiwm.example").unwrap_err();
    assert!(stranger.message.contains("--ca-file"), "{}", stranger.message);
}

#[test]
fn a_file_of_authorities_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("company.pem");
    let trust = Trust { pin: None, ca_file: Some(path.clone()) };
    let code = || Failure::from(client_config(&trust).unwrap_err()).code;
    assert_eq!(code(), ErrorCode::FileFailed);
    for text in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(code(), ErrorCode::ConfigInvalid, "{text}");
    }
}

#[test]
fn what_does_not_speak_tls_is_no_controller_and_what_is_no_tls_error_is_none() {
    let error = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
    assert_eq!(explain(&error).unwrap().code, ErrorCode::ControllerInvalid);
    assert_eq!(explain(&io::Error::other("a cable was pulled")), None);
}
