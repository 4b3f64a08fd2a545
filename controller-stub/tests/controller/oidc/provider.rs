//! An identity provider that speaks OpenID Connect as a test wants it to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Form, Json, Router,
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) const CLIENT: &str = "aio";
pub(crate) const CLIENT_SECRET: &str = "a secret: with & signs";

/// A key that signs ID tokens.
#[derive(Clone)]
pub(crate) struct Key {
    pub id: &'static str,
    pub algorithm: Algorithm,
    pub pem: String,
}

/// How the provider answers at one of its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Failing,
    Hanging,
    Endless,
    Elsewhere,
}

/// What the provider does.
pub(crate) struct Behaviour {
    /// Those that it publishes.
    pub keys: Vec<Key>,
    /// The one that signs.
    pub signs: Key,
    /// What it says of the user, and what it says otherwise than it should.
    pub claims: Value,
    /// Makes a token in another way.
    pub token: Option<fn(&Value, &Key) -> String>,
    /// Whether a code may be used again.
    pub forgets: bool,
    /// How it says that it describes itself.
    pub description: Value,
    pub moods: HashMap<&'static str, Mood>,
    /// How often its keys were asked for.
    pub keys_asked: usize,
    codes: HashMap<String, HashMap<String, String>>,
}

pub(crate) struct Provider {
    pub issuer: String,
    behaviour: Arc<Mutex<Behaviour>>,
    task: tokio::task::JoinHandle<()>,
}

impl Key {
    pub(crate) fn elliptic(id: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Self { id, algorithm: Algorithm::ES256, pem: pair.serialize_pem() }
    }

    pub(crate) fn rsa(id: &'static str) -> Self {
        let size = rcgen::RsaKeySize::_2048;
        let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).unwrap();
        Self { id, algorithm: Algorithm::RS256, pem: pair.serialize_pem() }
    }

    fn encoding(&self) -> EncodingKey {
        match self.algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(self.pem.as_bytes()).unwrap(),
            _ => EncodingKey::from_ec_pem(self.pem.as_bytes()).unwrap(),
        }
    }

    /// Its public half.
    pub(crate) fn jwk(&self) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.encoding(), self.algorithm).unwrap();
        jwk.common.key_id = self.name();
        jwk
    }

    /// A provider with one key may leave it without a name.
    fn name(&self) -> Option<String> {
        Some(self.id.to_owned()).filter(|id| !id.is_empty())
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = self.name();
        jsonwebtoken::encode(&header, claims, &self.encoding()).unwrap()
    }
}

impl Provider {
    pub(crate) async fn start(key: Key) -> Self {
        Self::start_as("127.0.0.1", key).await
    }

    /// A provider on this machine, under this name of it.
    pub(crate) async fn start_as(host: &str, key: Key) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{host}:{}/realms/gpu", listener.local_addr().unwrap().port());
        let behaviour = Arc::new(Mutex::new(Behaviour {
            keys: vec![key.clone()],
            signs: key,
            claims: json!({}),
            token: None,
            forgets: false,
            description: json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{issuer}/authorize?kc_theme=plain"),
                "token_endpoint": format!("{issuer}/token"),
                "jwks_uri": format!("{issuer}/keys"),
                "authorization_response_iss_parameter_supported": true,
            }),
            moods: HashMap::new(),
            keys_asked: 0,
            codes: HashMap::new(),
        }));
        let routes = Router::new()
            .route("/realms/gpu/.well-known/openid-configuration", get(describe))
            .route("/realms/gpu/authorize", get(authorize))
            .route("/realms/gpu/token", post(exchange))
            .route("/realms/gpu/keys", get(publish))
            .with_state(behaviour.clone());
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { issuer, behaviour, task }
    }

    pub(crate) fn does<T>(&self, change: impl FnOnce(&mut Behaviour) -> T) -> T {
        change(&mut self.behaviour.lock().unwrap())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Shared = State<Arc<Mutex<Behaviour>>>;

/// The answer of an address that the provider is in a mood at.
async fn moody(behaviour: &Mutex<Behaviour>, address: &str) -> Option<Response> {
    let mood = behaviour.lock().unwrap().moods.get(address).copied();
    Some(match mood? {
        Mood::Failing => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Mood::Hanging => std::future::pending().await,
        Mood::Endless => {
            let chunks = std::iter::repeat_with(|| Ok::<_, std::convert::Infallible>(vec![b' '; 65_536]));
            Body::from_stream(futures_util::stream::iter(chunks)).into_response()
        }
        Mood::Elsewhere => (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response(),
    })
}

async fn describe(State(behaviour): Shared) -> Response {
    if let Some(answer) = moody(&behaviour, "describe").await {
        return answer;
    }
    Json(behaviour.lock().unwrap().description.clone()).into_response()
}

async fn publish(State(behaviour): Shared) -> Response {
    behaviour.lock().unwrap().keys_asked += 1;
    if let Some(answer) = moody(&behaviour, "keys").await {
        return answer;
    }
    let mut keys: Vec<_> = behaviour.lock().unwrap().keys.iter().map(|key| json!(key.jwk())).collect();
    // What others publish as well, and is not for ID tokens.
    keys.push(json!({"kty": "EC", "crv": "secp256k1", "kid": "odd", "x": "AA", "y": "AA"}));
    keys.push(json!({"kty": "oct", "kid": "shared", "k": URL_SAFE_NO_PAD.encode(CLIENT_SECRET)}));
    Json(json!({"keys": keys})).into_response()
}

/// Signs everybody in at once.
async fn authorize(State(behaviour): Shared, Query(asked): Query<HashMap<String, String>>) -> Response {
    let expected = [
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("code_challenge_method", "S256"),
        ("kc_theme", "plain"),
    ];
    for (name, value) in expected {
        assert_eq!(asked.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(asked["scope"].split(' ').any(|scope| scope == "openid"), "{asked:?}");
    let mut behaviour = behaviour.lock().unwrap();
    let code = format!("code {}", behaviour.codes.len());
    let mut back: reqwest::Url = asked["redirect_uri"].parse().unwrap();
    back.query_pairs_mut()
        .append_pair("code", &code)
        .append_pair("state", &asked["state"])
        .append_pair("iss", behaviour.description["issuer"].as_str().unwrap());
    behaviour.codes.insert(code, asked);
    (StatusCode::FOUND, [(header::LOCATION, back.to_string())]).into_response()
}

async fn exchange(
    State(behaviour): Shared,
    headers: HeaderMap,
    Form(asked): Form<HashMap<String, String>>,
) -> Response {
    if let Some(answer) = moody(&behaviour, "token").await {
        return answer;
    }
    let refuse = |error: &str| (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response();
    let pair = STANDARD.encode("aio:a%20secret%3A%20with%20%26%20signs");
    let basic = headers.get(header::AUTHORIZATION).is_some_and(|it| *it == format!("Basic {pair}"));
    let posted = asked.get("client_id").map(String::as_str) == Some(CLIENT)
        && asked.get("client_secret").map(String::as_str) == Some(CLIENT_SECRET);
    if !basic && !posted {
        return refuse("invalid_client");
    }
    let mut behaviour = behaviour.lock().unwrap();
    let forgets = behaviour.forgets;
    let begun = match forgets {
        true => behaviour.codes.get(&asked["code"]).cloned(),
        false => behaviour.codes.remove(&asked["code"]),
    };
    let Some(begun) = begun else { return refuse("invalid_grant") };
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&asked["code_verifier"]));
    if begun["code_challenge"] != challenge || begun["redirect_uri"] != asked["redirect_uri"] {
        return refuse("invalid_grant");
    }
    let now = jsonwebtoken::get_current_timestamp();
    let mut claims = json!({
        "iss": behaviour.description["issuer"], "aud": CLIENT, "sub": "ann", "iat": now, "exp": now + 300,
        "nonce": begun["nonce"],
    });
    for (name, value) in behaviour.claims.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    let token = match behaviour.token {
        Some(token) => token(&claims, &behaviour.signs),
        None => behaviour.signs.sign(&claims),
    };
    Json(json!({"access_token": "opaque", "token_type": "Bearer", "id_token": token})).into_response()
}
