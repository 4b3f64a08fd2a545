//! One webhook as a relay's receiver: it is posted to over a client of its own, signed with its secrets, and
//! every attempt is written down.

use std::time::Duration;

use aio_protocol::{ids::NodeId, time::Timestamp};
use metrics::counter;
use reqwest::{Client, Url};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::guard::{Guard, Refused};
use crate::{
    noti::signature::{InvalidSecret, WebhookKeys},
    outbox::{Answer, Attempted, Came, Receiver, client, post_signed},
    store::{Follows, Store, StoreError, Undelivered, Webhook, WebhookAttempt},
};

/// A webhook, ready to be posted to.
pub(crate) struct Endpoint {
    store: Store,
    id: Uuid,
    name: String,
    url: Url,
    client: Client,
    keys: WebhookKeys,
    /// The keys while the secret before signs, too, and until when.
    overlap: Option<(WebhookKeys, Timestamp)>,
}

/// Why a webhook cannot be posted to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("its URL {0}")]
    Url(#[from] Refused),
    #[error("its secret cannot be used")]
    Secret(#[from] InvalidSecret),
    #[error("there is no HTTP client for it")]
    Client(#[source] reqwest::Error),
}

impl Endpoint {
    pub(crate) fn new(webhook: &Webhook, guard: &Guard, store: Store) -> Result<Self, Unusable> {
        let url = guard.url(&webhook.url)?;
        let overlap = match &webhook.previous {
            Some((previous, until)) => {
                let both = format!("{} {}", webhook.secret.expose_secret(), previous.expose_secret());
                Some((WebhookKeys::new(&SecretString::from(both))?, *until))
            }
            None => None,
        };
        let client = client().no_proxy().dns_resolver(guard.resolver(&url)).build();
        Ok(Self {
            store,
            id: webhook.id,
            name: name_of(webhook),
            client: client.map_err(Unusable::Client)?,
            url,
            keys: WebhookKeys::new(&webhook.secret)?,
            overlap,
        })
    }

    /// Makes one attempt.
    pub(super) async fn send(&self, id: &str, body: String, now: Timestamp) -> Answer {
        let overlapping = self.overlap.as_ref().filter(|(_, until)| now < *until);
        let keys = overlapping.map_or(&self.keys, |(both, _)| both);
        post_signed(self.client.post(self.url.clone()), keys, id, body, now).await
    }

    /// Writes an attempt down. Nothing of `kind` where it stands with the event.
    pub(super) async fn write_down(
        &self,
        event: &str,
        kind: &str,
        (at, took): (Timestamp, Duration),
        answer: &Answer,
        follows: Follows,
    ) -> Result<WebhookAttempt, StoreError> {
        let delivered = matches!(answer, Answer::Status { code: 200..=299, .. });
        let outcome = match &follows {
            Follows::Delivered => "delivered",
            Follows::Postponed(..) => "postponed",
            Follows::Dead(_) => "dead",
            Follows::Nothing if delivered => "delivered",
            Follows::Nothing => "failed",
        };
        counter!("aio_webhook_attempts_total", "outcome" => outcome).increment(1);
        let attempt = WebhookAttempt {
            event: event.to_owned(),
            kind: kind.to_owned(),
            at,
            millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            outcome: outcome.to_owned(),
            answer: aio_protocol::text::clean(&answer.in_words("it"), MAX_ANSWER_CHARS),
        };
        self.store.note_webhook_attempt(self.id, attempt.clone(), follows).await?;
        Ok(attempt)
    }
}

/// The longest answer that the log of attempts holds, in characters.
const MAX_ANSWER_CHARS: usize = 255;

/// What logs call a webhook: never its URL, which may hold a secret.
pub(super) fn name_of(webhook: &Webhook) -> String {
    format!("the webhook {}", webhook.id)
}

impl Receiver for Endpoint {
    fn name(&self) -> &str {
        &self.name
    }

    async fn undelivered(&self, node: &NodeId, limit: u64) -> Result<Vec<Undelivered>, StoreError> {
        self.store.undelivered_to_webhook(self.id, node, limit).await
    }

    async fn post(&self, id: &str, body: String, now: Timestamp) -> Answer {
        self.send(id, body, now).await
    }

    async fn note(&self, attempted: Attempted<'_>) -> Result<(), StoreError> {
        let Attempted { event, began, at, tried_for, answer, came, .. } = attempted;
        let follows = match came {
            Came::Delivered => Follows::Delivered,
            Came::Postponed(due) => Follows::Postponed(tried_for, due),
            Came::Dead(why) => Follows::Dead(format!("{why}: {}", answer.in_words("it"))),
        };
        self.write_down(event, "", (at, began.elapsed()), answer, follows).await.map(drop)
    }
}
