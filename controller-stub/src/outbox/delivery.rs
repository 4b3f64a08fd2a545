//! Posts one event to NOTI, signed after the Standard Webhooks specification. What the answer
//! means, `verdict` says.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use aio_protocol::{error_code::ErrorCode, sources::innermost, time::Timestamp};
use reqwest::{
    Certificate, Client, ClientBuilder, Identity, RequestBuilder, Response, Url, header, redirect,
};
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};

use super::verdict::Answer;
use crate::{
    config::Config,
    loopback::is_this_machine,
    noti::signature::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, WebhookKeys},
    tls::{self, TlsError},
};

/// An attempt that takes longer has failed.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// The most of an answer's body that is read so that its connection can be used again.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Posts to one NOTI.
pub(crate) struct Delivery {
    client: Client,
    url: String,
    bearer: SecretString,
    keys: WebhookKeys,
}

/// Which NOTI is posted to, and how it is known.
pub(crate) struct Destination {
    /// The built-in one when unset.
    url: Option<Url>,
    ca_file: Option<PathBuf>,
    client_files: Option<(PathBuf, PathBuf)>,
}

/// Why nothing can be posted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unbuildable {
    #[error("cannot make an HTTP client for NOTI")]
    Client(#[source] reqwest::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Unbuildable {
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Client(_) => ErrorCode::ControllerError,
            Self::Tls(error) => error.code(),
        }
    }
}

impl Destination {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            url: config.noti_service_url.clone(),
            ca_file: config.noti_ca_file.clone(),
            client_files: config.noti_client_files.clone(),
        }
    }

    /// Says whether it could be posted to, as far as files tell.
    pub(crate) fn check(&self) -> Result<(), Unbuildable> {
        self.client(None).map(drop)
    }

    /// A NOTI on this very machine is never reached through a proxy, and the built-in one is
    /// trusted by `own_tls`, where that is served over TLS.
    fn client(&self, own_tls: Option<ClientConfig>) -> Result<Client, Unbuildable> {
        let mut client = client();
        match &self.url {
            Some(url) => {
                if is_this_machine(url) {
                    client = client.no_proxy();
                }
                if let Some(file) = &self.ca_file {
                    client = client.tls_certs_only(certificates(file)?);
                }
                if let Some((certificate, key)) = &self.client_files {
                    client = client.identity(identity(certificate, key)?);
                }
            }
            None => {
                client = client.no_proxy();
                if let Some(tls) = own_tls {
                    client = client.tls_backend_preconfigured(tls);
                }
            }
        }
        client.build().map_err(Unbuildable::Client)
    }
}

fn certificates(file: &Path) -> Result<Vec<Certificate>, TlsError> {
    let problem = |problem: String| TlsError::Content { path: file.to_owned(), problem };
    let certificates = Certificate::from_pem_bundle(&tls::read(file)?)
        .map_err(|error| problem(format!("is not PEM: {}", innermost(&error))))?;
    if certificates.is_empty() {
        return Err(problem("holds no certificate in PEM".to_owned()));
    }
    Ok(certificates)
}

fn identity(certificate: &Path, key: &Path) -> Result<Identity, TlsError> {
    tls::check_pair(certificate, key)?;
    let pem = [tls::read(certificate)?, tls::read(key)?].join(&b'\n');
    let problem = |error| format!("cannot be used with its key: {}", innermost(&error));
    Identity::from_pem(&pem)
        .map_err(|error| TlsError::Content { path: certificate.to_owned(), problem: problem(error) })
}

impl Delivery {
    /// Posts to `{NOTI_SERVICE_URL}/events`, or to the built-in NOTI at `built_in`.
    pub(crate) fn new(
        destination: &Destination,
        built_in: &str,
        own_tls: Option<ClientConfig>,
        bearer: SecretString,
        keys: WebhookKeys,
    ) -> Result<Self, Unbuildable> {
        let base = destination.url.as_ref().map_or(built_in, Url::as_str);
        let url = format!("{}/events", base.trim_end_matches('/'));
        Ok(Self { client: destination.client(own_tls)?, url, bearer, keys })
    }

    /// The address that is posted to.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Makes one attempt.
    pub(super) async fn post(&self, id: &str, body: String, now: Timestamp) -> Answer {
        let request = self.client.post(&self.url).bearer_auth(self.bearer.expose_secret());
        post_signed(request, &self.keys, id, body, now).await
    }
}

/// Sends `body` as the message `id`, signed with `keys`.
pub(crate) async fn post_signed(
    request: RequestBuilder,
    keys: &WebhookKeys,
    id: &str,
    body: String,
    now: Timestamp,
) -> Answer {
    let timestamp = now.as_millis() / 1000;
    let signature = keys.sign(id, timestamp, body.as_bytes());
    let answered = request
        .header(header::CONTENT_TYPE, "application/json")
        .header(ID_HEADER, id)
        .header(TIMESTAMP_HEADER, timestamp.to_string())
        .header(SIGNATURE_HEADER, signature)
        .body(body)
        .send()
        .await;
    match answered {
        Ok(response) => {
            let retry_after = response.headers().get(header::RETRY_AFTER);
            let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
            let code = response.status().as_u16();
            finish(response).await;
            Answer::Status { code, retry_after }
        }
        Err(error) if error.is_timeout() => Answer::TimedOut,
        Err(error) => Answer::Broken(innermost(&error)),
    }
}

/// What every client that posts events is: it follows no redirect, and waits for no answer for long.
pub(crate) fn client() -> ClientBuilder {
    Client::builder()
        .timeout(ATTEMPT_TIMEOUT)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("aio-controller-stub/", env!("CARGO_PKG_VERSION")))
}

/// Reads what is left of an answer. What it says is known already, so that nothing can go wrong here.
async fn finish(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > MAX_ANSWER_BYTES {
            return;
        }
    }
}
