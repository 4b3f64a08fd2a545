//! Posts one event to NOTI, signed after the Standard Webhooks specification. Only a 2xx is an acknowledgement.

use std::{error::Error, time::Duration};

use aio_protocol::time::Timestamp;
use reqwest::{Client, StatusCode, header, redirect};
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};

use crate::noti::signature::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, WebhookKey};

/// An attempt that takes longer has failed.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Posts to one NOTI.
pub(crate) struct Delivery {
    client: Client,
    url: String,
    bearer: SecretString,
    key: WebhookKey,
}

/// There is no HTTP client to be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot make an HTTP client")]
pub(crate) struct Unbuildable(#[source] reqwest::Error);

/// Why NOTI has not acknowledged an event.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undelivered {
    #[error("NOTI answered {0}")]
    Refused(StatusCode),
    #[error("NOTI did not answer: {0}")]
    Unreachable(String),
}

impl Delivery {
    /// Posts to `{base}/events`. A NOTI on this very machine is never reached through a proxy, and where that is served over TLS,
    /// trusted by `own_tls`.
    pub(crate) fn new(
        base: &str,
        built_in: bool,
        own_tls: Option<ClientConfig>,
        bearer: SecretString,
        key: WebhookKey,
    ) -> Result<Self, Unbuildable> {
        let mut client = Client::builder().timeout(ATTEMPT_TIMEOUT).redirect(redirect::Policy::none());
        if built_in {
            client = client.no_proxy();
        }
        if let Some(tls) = own_tls {
            client = client.tls_backend_preconfigured(tls);
        }
        let url = format!("{}/events", base.trim_end_matches('/'));
        Ok(Self { client: client.build().map_err(Unbuildable)?, url, bearer, key })
    }

    /// Makes one attempt.
    pub(super) async fn post(&self, id: &str, body: String, now: Timestamp) -> Result<(), Undelivered> {
        let timestamp = now.as_millis() / 1000;
        let signature = self.key.sign(id, timestamp, body.as_bytes());
        let answer = self
            .client
            .post(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(ID_HEADER, id)
            .header(TIMESTAMP_HEADER, timestamp.to_string())
            .header(SIGNATURE_HEADER, signature)
            .bearer_auth(self.bearer.expose_secret())
            .body(body)
            .send()
            .await
            .map_err(|error| Undelivered::Unreachable(innermost(&error)))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(Undelivered::Refused(status)),
        }
    }
}

/// The reason at the bottom: what is above only says that a request was sent.
fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
