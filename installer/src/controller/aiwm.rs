//! AIWM's HTTP interface as a node uses it: setup token for secret, secret for node token, node token
//! for a newer one, and metrics for MONA. One call each; whoever calls decides what is tried again.
//! No call follows a redirect, and no secret is in any failure.

use std::time::Duration;

use aio_host::{
    proxy::Proxy,
    tls::{self, Trust},
};
use aio_protocol::{
    aiwm::{
        mona::Push,
        rest::{Bootstrap, Bootstrapped, Hidden, LoggedIn, Login, Refresh, Refused, path},
    },
    error_code::ErrorCode,
    ids::NodeId,
};
use reqwest::{Client, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use crate::{controller::http, failure::Failure};

/// For one call, from name resolution to the last byte of its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// For a bootstrap. Whoever hangs up before its answer loses what is given once.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(90);

/// A token that is believed for longer than a day says nothing any more.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);

/// AIWM, or MONA beside it.
#[derive(Debug, Clone)]
pub struct AiwmService {
    client: Client,
    base: Url,
}

/// A node token, and for how long it holds.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The token.
    pub token: SecretString,
    /// From when it was asked for.
    pub life: Duration,
}

/// What a call is for: what its refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Bootstrap,
    Login,
    Refresh,
    Push,
}

impl Purpose {
    fn path(self) -> &'static str {
        match self {
            Self::Bootstrap => path::BOOTSTRAP,
            Self::Login => path::LOGIN,
            Self::Refresh => path::REFRESH,
            Self::Push => path::PUSH,
        }
    }

    /// The code of a refusal in AIWM's own form; none where the status alone says it.
    fn refused(self, status: StatusCode) -> Option<ErrorCode> {
        match (self, status.as_u16()) {
            (Self::Bootstrap, 400..=404) => Some(ErrorCode::SetupTokenRefused),
            (Self::Login, 400..=403) => Some(ErrorCode::SecretRefused),
            (Self::Login, 404) => Some(ErrorCode::NodeNotFound),
            (Self::Refresh | Self::Push, 401) => Some(ErrorCode::TokenInvalid),
            (Self::Push, 400) => Some(ErrorCode::ValidationFailed),
            _ => None,
        }
    }
}

impl AiwmService {
    /// The service at `base`, trusted and reached as the session is: through `proxy`, or what the
    /// environment says, and in the clear only where that is allowed. Reads files.
    pub fn at(
        base: &str,
        trust: &Trust,
        proxy: Option<&Proxy>,
        insecure_http: bool,
    ) -> Result<Self, Failure> {
        let base = http::parse(base, "the address of AIWM", insecure_http)?;
        let client = http::client_of_calls(&base, trust, proxy.map(http::through).transpose()?)?;
        Ok(Self { client, base })
    }

    /// Exchanges a setup token for the node's secret. It works once: whoever calls this must be ready
    /// to keep what it gives.
    pub async fn bootstrap(&self, setup_token: &SecretString) -> Result<Bootstrapped, Failure> {
        let body = Bootstrap { setup_token: hidden(setup_token) };
        self.answer(Purpose::Bootstrap, &body, None).await
    }

    /// Logs a node in.
    pub async fn login(&self, node: &NodeId, secret: &str) -> Result<Granted, Failure> {
        let (id, secret) = (Some(node.as_str().to_owned()), Hidden(secret.to_owned()));
        let logged_in: LoggedIn =
            self.answer(Purpose::Login, &Login { id, api_key: None, secret }, None).await?;
        if let Some(other) = logged_in.node.as_ref().filter(|other| other.id != node.as_str()) {
            let message =
                format!("AIWM at {} gave a token of node {} to node {node}", self.place(), other.id);
            return Err(Failure::new(ErrorCode::TokenForeign, message));
        }
        Ok(granted(logged_in))
    }

    /// A newer token for this one.
    pub async fn refresh(&self, token: &SecretString) -> Result<Granted, Failure> {
        self.answer(Purpose::Refresh, &Refresh { token: hidden(token) }, None).await.map(granted)
    }

    /// Pushes metrics.
    pub async fn push(&self, token: &SecretString, metrics: &Push) -> Result<(), Failure> {
        self.call(Purpose::Push, metrics, Some(token)).await.map(drop)
    }

    /// Where it is, for words.
    pub fn place(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    async fn answer<A: serde::de::DeserializeOwned>(
        &self,
        purpose: Purpose,
        body: &impl Serialize,
        token: Option<&SecretString>,
    ) -> Result<A, Failure> {
        let body = self.call(purpose, body, token).await?;
        serde_json::from_slice(&body).map_err(|error| {
            // The parser's words may quote a secret.
            let fault = format!("its answer is none ({:?} fault)", error.classify());
            self.not_aiwm(purpose, &fault)
        })
    }

    async fn call(
        &self,
        purpose: Purpose,
        body: &impl Serialize,
        token: Option<&SecretString>,
    ) -> Result<Vec<u8>, Failure> {
        let url = format!("{}{}", self.base.as_str().trim_end_matches('/'), purpose.path());
        let patience = if purpose == Purpose::Bootstrap { BOOTSTRAP_TIMEOUT } else { CALL_TIMEOUT };
        let mut request = self.client.post(url).timeout(patience).json(body);
        if let Some(token) = token {
            request = request.bearer_auth(token.expose_secret());
        }
        let mut answer = request.send().await.map_err(|error| self.no_answer(purpose, error))?;
        let status = answer.status();
        let asked = http::retry_after(&answer);
        let body = http::read(&mut answer).await.map_err(|error| match error {
            Some(error) => self.no_answer(purpose, error),
            None => self.not_aiwm(purpose, "its answer is endless"),
        })?;
        if status.is_success() { Ok(body) } else { Err(self.refusal(purpose, status, &body, asked)) }
    }

    fn refusal(&self, purpose: Purpose, status: StatusCode, body: &[u8], asked: Option<Duration>) -> Failure {
        let number = status.as_u16();
        // Only an answer in AIWM's own form is a verdict; a proxy or a captive portal knows no secret.
        let said = serde_json::from_slice::<Refused>(body).ok().filter(|said| said.status_code == number);
        let code = match (&said, number) {
            (_, 429) => ErrorCode::RateLimited,
            (_, 500..) => ErrorCode::ControllerError,
            (Some(_), _) => purpose.refused(status).unwrap_or(ErrorCode::ControllerInvalid),
            (None, _) => return self.not_aiwm(purpose, &format!("it answered {status}")),
        };
        let words = said.map(|said| said.message).filter(|words| !words.is_empty());
        let words = words.unwrap_or_else(|| status.to_string());
        let message = format!("AIWM at {} refused {} ({number}): {words}", self.place(), purpose.path());
        let failure = Failure::new(code, message).with("status", number);
        match asked {
            Some(asked) => failure.with("retryAfterSeconds", asked.as_secs()),
            None => failure,
        }
    }

    fn no_answer(&self, purpose: Purpose, error: reqwest::Error) -> Failure {
        let place = self.place();
        if let Some(objection) = tls::explain(&error) {
            return objection.while_trying(format!("could not connect to AIWM at {place}"));
        }
        if http::is_refused_by_proxy(&error) {
            let reason = http::reason(error);
            let message = format!("a proxy does not let the connection to {place} through: {reason}");
            return Failure::new(ErrorCode::ProxyRefused, message);
        }
        let reachable = !error.is_connect() && !error.is_timeout() && !error.is_body();
        let reason = http::reason(error);
        if reachable {
            return self.not_aiwm(purpose, &format!("what it answered is not HTTP ({reason})"));
        }
        let message = format!("could not reach AIWM at {place}: {reason}");
        Failure::new(ErrorCode::ControllerUnreachable, message)
    }

    fn not_aiwm(&self, purpose: Purpose, reason: &str) -> Failure {
        let message = format!("what answers {} at {} is not AIWM: {reason}", purpose.path(), self.place());
        Failure::new(ErrorCode::ControllerInvalid, message)
    }
}

fn hidden(secret: &SecretString) -> Hidden {
    Hidden(secret.expose_secret().to_owned())
}

fn granted(answer: LoggedIn) -> Granted {
    let life = Duration::from_secs(answer.expires_in).min(MAX_LIFE);
    Granted { token: SecretString::from(answer.access_token.0), life }
}
