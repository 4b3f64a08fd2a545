//! What is asked of the identity provider: its description (discovery), its keys (JWKS) and the ID token for a
//! code. Every answer is bounded in size and time, comes over TLS or from this machine, and no redirect is
//! followed. Description and keys are kept for an hour; keys are asked for again when one is unknown, but not
//! at every token that names one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aio_protocol::sources::innermost;
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Client, RequestBuilder, StatusCode, Url, header, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::{
    NotSignedIn,
    id_token::{self, Key},
};
use crate::{
    config,
    loopback::is_this_machine,
    rate::{Allowance, Rate},
};

/// A request that takes longer has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Longer answers are not read. Keys with certificates take some 20 KiB.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// How long description and keys are kept.
const KEPT_FOR: Duration = Duration::from_secs(3600);

/// How often keys are asked for again because one is unknown.
const OTHER_KEYS: Rate = Rate { interval: Duration::from_secs(30), burst: 3 };

/// The longest error code of a provider that is repeated.
const MAX_REASON_BYTES: usize = 64;

/// The one identity provider.
pub(super) struct Provider {
    issuer: String,
    client_id: String,
    client_secret: Option<SecretString>,
    client: Client,
    known: Mutex<Known>,
}

/// What the provider has said of itself.
struct Known {
    description: Option<(Arc<Description>, Instant)>,
    keys: Option<(Arc<[Key]>, Instant)>,
    other_keys: Allowance,
}

/// The provider's description (OpenID Connect Discovery, 3), as far as it is needed.
#[derive(Debug, Deserialize)]
struct Described {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// The same, checked.
#[derive(Debug)]
struct Description {
    authorization_endpoint: Url,
    token_endpoint: Url,
    jwks_uri: Url,
    /// Whether the client's secret goes by HTTP's basic scheme.
    takes_basic: bool,
    /// Whether it says whose every code is (RFC 9207).
    names_issuer: bool,
}

/// What comes of a code (RFC 6749, 5).
#[derive(Deserialize)]
struct Exchanged {
    id_token: Option<String>,
    error: Option<String>,
}

/// What is wrong with the provider.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("it does not answer: {0}")]
    Unreachable(String),
    #[error("it does not answer in time")]
    Slow,
    #[error("its answer is longer than {MAX_ANSWER_BYTES} bytes")]
    Long,
    #[error("{0} answered {1}")]
    Status(&'static str, StatusCode),
    #[error("the answer of {0} is not understood")]
    Unreadable(&'static str),
    #[error("its description is of issuer {0}, and OIDC_ISSUER names another")]
    OtherIssuer(String),
    #[error("its {0} is neither https:// nor this machine's")]
    Clear(&'static str),
}

impl Provider {
    pub(super) fn new(
        config: &config::Oidc,
        client_secret: Option<SecretString>,
    ) -> Result<Self, reqwest::Error> {
        let mut client = Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("aio-controller-stub/", env!("CARGO_PKG_VERSION")));
        if config.issuer.parse::<Url>().is_ok_and(|url| is_this_machine(&url)) {
            client = client.no_proxy();
        }
        Ok(Self {
            issuer: config.issuer.clone(),
            client_id: config.client_id.clone(),
            client_secret,
            client: client.build()?,
            known: Mutex::new(Known {
                description: None,
                keys: None,
                other_keys: Allowance::new(Instant::now()),
            }),
        })
    }

    /// Where people are sent to sign in.
    pub(super) async fn authorization_endpoint(&self) -> Result<Url, NotSignedIn> {
        let description = self.description(&mut *self.known.lock().await).await?;
        Ok(description.authorization_endpoint.clone())
    }

    /// Refuses a code of another provider's (RFC 9207).
    pub(super) async fn refuse_other_issuer(&self, issuer: Option<&str>) -> Result<(), NotSignedIn> {
        let description = self.description(&mut *self.known.lock().await).await?;
        match issuer {
            Some(issuer) if issuer == self.issuer => Ok(()),
            None if !description.names_issuer => Ok(()),
            _ => Err(NotSignedIn::Refused("the answer is not the provider's own".to_owned())),
        }
    }

    /// The ID token for a code.
    pub(super) async fn token_for(
        &self,
        code: &str,
        verifier: &str,
        redirect_uri: &str,
    ) -> Result<String, NotSignedIn> {
        const WHAT: &str = "its token endpoint";
        let description = self.description(&mut *self.known.lock().await).await?;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ];
        let mut request = self.client.post(description.token_endpoint.clone());
        match &self.client_secret {
            // What every provider takes unless it says otherwise (OpenID Connect Discovery, 3).
            Some(secret) if description.takes_basic => {
                let pair = format!("{}:{}", escaped(&self.client_id), escaped(secret.expose_secret()));
                request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)));
            }
            Some(secret) => form
                .extend([("client_id", self.client_id.as_str()), ("client_secret", secret.expose_secret())]),
            None => form.push(("client_id", self.client_id.as_str())),
        }
        let body: Vec<_> = form.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let request = request
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(body.join("&"));
        let (status, bytes) = answer(request).await?;
        let exchanged = serde_json::from_slice::<Exchanged>(&bytes);
        match (status, exchanged) {
            (StatusCode::OK, Ok(Exchanged { id_token: Some(token), .. })) => Ok(token),
            (_, Ok(Exchanged { error: Some(error), .. })) if status.is_client_error() => {
                Err(NotSignedIn::Refused(reason(&error)))
            }
            (StatusCode::OK, _) => Err(Trouble::Unreadable(WHAT).into()),
            (status, _) => Err(Trouble::Status(WHAT, status).into()),
        }
    }

    /// The provider's keys.
    pub(super) async fn keys(&self) -> Result<Arc<[Key]>, NotSignedIn> {
        let mut known = self.known.lock().await;
        match &known.keys {
            Some((keys, asked)) if asked.elapsed() < KEPT_FOR => Ok(keys.clone()),
            _ => Ok(self.fetch_keys(&mut known).await?),
        }
    }

    /// The provider's keys, asked for again unless that was done lately.
    pub(super) async fn other_keys(&self) -> Result<Arc<[Key]>, NotSignedIn> {
        let mut known = self.known.lock().await;
        if known.other_keys.spend(OTHER_KEYS, 1, Instant::now()) {
            return Ok(self.fetch_keys(&mut known).await?);
        }
        Ok(known.keys.as_ref().map_or_else(|| Vec::new().into(), |(keys, _)| keys.clone()))
    }

    async fn fetch_keys(&self, known: &mut Known) -> Result<Arc<[Key]>, Trouble> {
        let description = self.description(known).await?;
        let set = self.fetch::<Value>("its list of keys", description.jwks_uri.clone()).await?;
        let keys: Arc<[Key]> = id_token::keys(&set).into();
        known.keys = Some((keys.clone(), Instant::now()));
        Ok(keys)
    }

    async fn description(&self, known: &mut Known) -> Result<Arc<Description>, Trouble> {
        const WHAT: &str = "its description";
        if let Some((description, asked)) = &known.description
            && asked.elapsed() < KEPT_FOR
        {
            return Ok(description.clone());
        }
        let address = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let address = address.parse().map_err(|_| Trouble::Unreadable(WHAT))?;
        let described: Described = self.fetch(WHAT, address).await?;
        if described.issuer != self.issuer {
            return Err(Trouble::OtherIssuer(reason(&described.issuer)));
        }
        let description = Arc::new(Description {
            authorization_endpoint: endpoint("authorization_endpoint", &described.authorization_endpoint)?,
            token_endpoint: endpoint("token_endpoint", &described.token_endpoint)?,
            jwks_uri: endpoint("jwks_uri", &described.jwks_uri)?,
            takes_basic: described.takes_basic(),
            names_issuer: described.authorization_response_iss_parameter_supported,
        });
        known.description = Some((description.clone(), Instant::now()));
        Ok(description)
    }

    async fn fetch<T: for<'de> Deserialize<'de>>(&self, what: &'static str, url: Url) -> Result<T, Trouble> {
        let request = self.client.get(url).header(header::ACCEPT, "application/json");
        let (status, bytes) = answer(request).await?;
        if status != StatusCode::OK {
            return Err(Trouble::Status(what, status));
        }
        serde_json::from_slice(&bytes).map_err(|_| Trouble::Unreadable(what))
    }
}

impl Described {
    fn takes_basic(&self) -> bool {
        let methods = self.token_endpoint_auth_methods_supported.as_ref();
        methods.is_none_or(|methods| {
            let names = |wanted: &str| methods.iter().any(|method| method == wanted);
            names("client_secret_basic") || !names("client_secret_post")
        })
    }
}

/// An address of the provider's, to which secrets may go.
fn endpoint(name: &'static str, text: &str) -> Result<Url, Trouble> {
    let url: Url = text.parse().map_err(|_| Trouble::Unreadable(name))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_this_machine(&url) => Ok(url),
        _ => Err(Trouble::Clear(name)),
    }
}

/// The status and the whole of an answer.
async fn answer(request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), Trouble> {
    let failed = |error: reqwest::Error| match error.is_timeout() {
        true => Trouble::Slow,
        false => Trouble::Unreachable(innermost(&error)),
    };
    let mut response = request.send().await.map_err(failed)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(Trouble::Long);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok((response.status(), bytes))
}

/// What a provider says, as far as it may be shown.
fn reason(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(MAX_REASON_BYTES).collect()
}

/// `text` as a value in a form (`application/x-www-form-urlencoded`).
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
