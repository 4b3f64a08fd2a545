//! Which tokens are accepted under which keys, and who may make them.

use aio_protocol::error_code::ErrorCode;
use controller_stub::{
    commands::{self, For},
    config::Config,
    serve::Server,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};

use crate::harness::{Controller, SECRET, refusal};

/// An Ed25519 key in files of its own.
struct KeyFiles {
    pair: KeyPair,
    folder: tempfile::TempDir,
}

impl KeyFiles {
    fn new() -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let folder = tempfile::tempdir().unwrap();
        secret_file(&folder.path().join("private.pem"), &pair.serialize_pem());
        std::fs::write(folder.path().join("public.pem"), pair.public_key_pem()).unwrap();
        Self { pair, folder }
    }

    fn private(&self) -> Option<std::path::PathBuf> {
        Some(self.folder.path().join("private.pem"))
    }

    fn public(&self) -> Option<std::path::PathBuf> {
        Some(self.folder.path().join("public.pem"))
    }
}

/// A file that only its owner can read.
fn secret_file(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

fn user_claims() -> Value {
    let exp = jiff_now() + 600;
    json!({"sub": "someone", "orgId": "acme", "roles": ["organization.owner"], "exp": exp})
}

fn jiff_now() -> i64 {
    let now: aio_protocol::time::Timestamp = std::time::SystemTime::now().into();
    now.as_millis() / 1000
}

fn hs256(secret: &[u8], claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret)).unwrap()
}

fn algorithm(token: &str) -> Algorithm {
    jsonwebtoken::decode_header(token).unwrap().alg
}

#[tokio::test]
async fn with_a_key_tokens_are_signed_with_it_and_the_secret_counts_only_where_it_was_given() {
    let key = KeyFiles::new();
    for secret_given in [false, true] {
        let controller = Controller::start_with(|config| {
            config.jwt_private_key_file = key.private();
            config.jwt_public_key_file = key.public();
            if !secret_given {
                config.jwt_secret = None;
            }
        })
        .await;
        let owner = controller.owner_of("acme").await;
        let id = owner.add_node("gpu").await;
        let token = owner.token_of(&id).await;
        assert_eq!(algorithm(&token), Algorithm::EdDSA);
        assert_eq!(controller.bearer(&token).get(&format!("/nodes/{id}/installation")).await.0, 200);

        let of_the_secret = controller.bearer(&hs256(SECRET.as_bytes(), &user_claims()));
        if secret_given {
            assert_eq!(of_the_secret.get("/nodes").await.0, 200);
        } else {
            refusal(of_the_secret.get("/nodes").await, 401, "TOKEN_INVALID");
            assert!(!controller.config.data_dir.join("secrets/jwt-secret").exists());
        }
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret_to_sign_with() {
    let key = KeyFiles::new();
    let controller = Controller::start_with(|config| {
        config.jwt_public_key_file = key.public();
        config.jwt_secret = None;
    })
    .await;
    let pem = key.pair.public_key_pem();
    for secret in [pem.as_bytes(), pem.trim().as_bytes(), key.pair.der_bytes(), b""] {
        let forged = controller.bearer(&hs256(secret, &user_claims()));
        refusal(forged.get("/nodes").await, 401, "TOKEN_INVALID");
    }
}

#[tokio::test]
async fn who_has_the_public_key_alone_verifies_and_issues_nothing() {
    let key = KeyFiles::new();
    let issuer = Controller::start_with(|config| config.jwt_private_key_file = key.private()).await;
    let replica = Controller::start_with(|config| {
        config.jwt_public_key_file = key.public();
        config.jwt_secret = None;
    })
    .await;
    let whose = || For { org: Some("acme".parse().unwrap()), user: Some("someone".parse().unwrap()) };
    let roles = || vec!["organization.owner".to_owned()];
    let token = commands::user_token(&issuer.config, whose(), roles(), 3600).await.unwrap();
    let owner = replica.bearer(&token);
    let id = owner.add_node("gpu").await;
    for path in ["token", "regenerate-credentials"] {
        refusal(owner.post(&format!("/nodes/{id}/{path}"), json!({})).await, 503, "VERIFY_ONLY");
    }
    let refused = commands::user_token(&replica.config, whose(), roles(), 3600).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::VerifyOnly);
}

#[tokio::test]
async fn a_key_that_cannot_be_used_is_named_before_anything_starts() {
    let (key, other) = (KeyFiles::new(), KeyFiles::new());
    let folder = tempfile::tempdir().unwrap();
    let ec = folder.path().join("ec.pem");
    secret_file(&ec, &KeyPair::generate().unwrap().serialize_pem());
    let code = async |change: &dyn Fn(&mut Config)| {
        let mut config = Config::new(folder.path().join("data"));
        config.listen = ([127, 0, 0, 1], 0).into();
        change(&mut config);
        Server::start(config).await.map(drop).unwrap_err().code()
    };
    let invalid = ErrorCode::ConfigInvalid;
    assert_eq!(code(&|it| it.jwt_private_key_file = Some(ec.clone())).await, invalid);
    assert_eq!(code(&|it| it.jwt_private_key_file = key.public()).await, invalid);
    assert_eq!(code(&|it| it.jwt_public_key_file = key.private()).await, invalid);
    assert_eq!(
        code(&|it| (it.jwt_private_key_file, it.jwt_public_key_file) = (key.private(), other.public())).await,
        invalid
    );
    assert_eq!(code(&|it| it.jwt_public_key_file = Some("/nowhere.pem".into())).await, ErrorCode::FileFailed);
    let exposed = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(key.private().unwrap(), exposed).unwrap();
    assert_eq!(code(&|it| it.jwt_private_key_file = key.private()).await, ErrorCode::SecretExposed);
}

#[tokio::test]
async fn a_token_of_another_issuer_stands_until_the_nodes_tokens_are_revoked() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let foreign = |iat: i64| {
        let claims = json!({"sub": id, "type": "node", "jti": "of-aiwm", "iat": iat, "exp": iat + 3600,
            "ctl": "ws://a/ws/node", "api": "http://a"});
        controller.bearer(&hs256(SECRET.as_bytes(), &claims))
    };
    let path = format!("/nodes/{id}/installation");
    let before = foreign(jiff_now());
    assert_eq!(before.get(&path).await.0, 200);
    owner.post(&format!("/nodes/{id}/regenerate-credentials"), json!({})).await;
    refusal(before.get(&path).await, 401, "TOKEN_REVOKED");
    assert_eq!(foreign(jiff_now() + 1).get(&path).await.0, 200, "one that was made since stands");
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back_and_alone() {
    let controller = Controller::start_with(|config| {
        config.api_requests_per_second = std::num::NonZeroU32::new(5);
    })
    .await;
    let (busy, other) = (controller.owner_of("acme").await, controller.owner_of("other").await);
    let mut refused = None;
    for _ in 0..500 {
        let answer = busy.request(reqwest::Method::GET, "/nodes").send().await.unwrap();
        if answer.status() == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("somebody who asks 500 times at once is refused");
    assert_eq!(refused.headers()["retry-after"], "1");
    let body: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!(body["code"], "RATE_LIMITED");
    assert_eq!(other.get("/nodes").await.0, 200);
    assert_eq!(controller.nobody().get("/healthz").await.0, 200);
}

#[tokio::test]
async fn the_address_of_a_worker_is_what_a_trusted_proxy_says_and_nobody_else() {
    for (proxies, expected) in [(vec![], "127.0.0.1"), (vec!["127.0.0.0/8".parse().unwrap()], "203.0.113.7")]
    {
        let controller = Controller::start_with(|config| config.trusted_proxies = proxies).await;
        let owner = controller.owner_of("acme").await;
        let id = owner.add_node("gpu").await;
        let token = owner.token_of(&id).await;
        let mut worker =
            crate::peers::Worker::connect_through(&controller.gateway(), &id, &token, "203.0.113.7").await;
        worker.register().await;
        worker.receive("register.ack").await;
        assert_eq!(owner.node(&id).await["ipAddress"], expected);
    }
}
