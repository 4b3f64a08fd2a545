//! Posts one event to NOTI, signed after the Standard Webhooks specification. What the answer means, `verdict` says.

use std::{error::Error, time::Duration};

use aio_protocol::time::Timestamp;
use reqwest::{Client, Response, Url, header, redirect};
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};

use super::verdict::Answer;
use crate::config::is_this_machine;
use crate::noti::signature::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, WebhookKey};

/// An attempt that takes longer has failed.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// So much of an answer's body is read, so that its connection can be used again.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

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
        if built_in || Url::parse(base).is_ok_and(|url| is_this_machine(&url)) {
            client = client.no_proxy();
        }
        if let Some(tls) = own_tls {
            client = client.tls_backend_preconfigured(tls);
        }
        let url = format!("{}/events", base.trim_end_matches('/'));
        Ok(Self { client: client.build().map_err(Unbuildable)?, url, bearer, key })
    }

    /// Makes one attempt.
    pub(super) async fn post(&self, id: &str, body: String, now: Timestamp) -> Answer {
        let timestamp = now.as_millis() / 1000;
        let signature = self.key.sign(id, timestamp, body.as_bytes());
        let answered = self
            .client
            .post(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(ID_HEADER, id)
            .header(TIMESTAMP_HEADER, timestamp.to_string())
            .header(SIGNATURE_HEADER, signature)
            .bearer_auth(self.bearer.expose_secret())
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

/// The reason at the bottom: what is above only says that a request was sent.
fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
