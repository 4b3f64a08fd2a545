//! The built-in NOTI: what `POST /events` demands before it keeps an event, how long it keeps them, and who
//! may watch them. The wire form is the Standard Webhooks specification.

pub(crate) mod dashboard;
mod news;
pub(crate) mod origins;
pub(crate) mod seats;
pub(crate) mod signature;
mod stream;

use std::time::Duration;

use aio_protocol::{
    event::{InvalidEvent, NodeEvent},
    ids::OwnerId,
    time::Timestamp,
};
use metrics::counter;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;

use crate::store::{Store, StoreError};
use news::News;
use origins::Origins;
use seats::Seats;
use signature::{Unverified, WebhookKeys};

/// Receives, verifies, keeps and shows events.
pub(crate) struct Noti {
    store: Store,
    bearer: SecretString,
    keys: WebhookKeys,
    news: News,
    /// Of web pages that may watch.
    origins: Origins,
    /// How long a dashboard may take to read what was sent.
    patience: Duration,
    pub seats: Seats,
}

/// Why an event was not kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotKept {
    #[error(transparent)]
    Unverified(#[from] Unverified),
    #[error("the body is no node event: {0}")]
    NoEvent(#[source] serde_json::Error),
    #[error(transparent)]
    Invalid(#[from] InvalidEvent),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl NotKept {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Unverified(_) => "unverified",
            Self::NoEvent(_) | Self::Invalid(_) => "invalid",
            Self::Store(_) => "failed",
        }
    }
}

impl Noti {
    pub(crate) fn new(
        store: Store,
        bearer: SecretString,
        keys: WebhookKeys,
        origins: Origins,
        patience: Duration,
        seats: Seats,
    ) -> Self {
        Self { store, bearer, keys, news: News::default(), origins, patience, seats }
    }

    /// Whether `token` opens this NOTI.
    pub(crate) fn admits(&self, token: &str) -> bool {
        signature::same(self.bearer.expose_secret(), token)
    }

    /// Changes whenever an event of this organisation has been kept.
    pub(crate) fn news(&self, org: &OwnerId) -> watch::Receiver<()> {
        self.news.of(org)
    }

    /// Another controller has kept events.
    pub(crate) fn tell_all(&self) {
        self.news.tell_all();
    }

    /// Whether pages of this origin may watch.
    pub(crate) fn welcomes_page_of(&self, origin: &str) -> bool {
        self.origins.contain(origin)
    }

    /// Verifies `body` as it came over the wire and keeps the event; says whether it is new.
    pub(crate) async fn receive(
        &self,
        signed: signature::Headers<'_>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<bool, NotKept> {
        let received = self.keep(signed, body, now).await;
        let outcome = match &received {
            Ok(true) => "accepted",
            Ok(false) => "duplicate",
            Err(error) => error.as_str(),
        };
        counter!("aio_noti_received_total", "outcome" => outcome).increment(1);
        received
    }

    async fn keep(
        &self,
        signed: signature::Headers<'_>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<bool, NotKept> {
        let id = self.keys.verify(signed, body, now)?;
        let event: NodeEvent = serde_json::from_slice(body).map_err(NotKept::NoEvent)?;
        event.check()?;
        let new = self.store.receive(id, &event, now).await?;
        if new {
            self.news.tell(&event.owner().org_id);
        }
        Ok(new)
    }
}
