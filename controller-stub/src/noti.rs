//! The built-in NOTI: what `POST /events` demands before it keeps an event, how long it keeps them, and who may watch them. The wire
//! form is the Standard Webhooks specification.

pub(crate) mod dashboard;
mod news;
pub(crate) mod retention;
pub(crate) mod signature;
mod stream;

use std::{sync::Arc, time::Duration};

use aio_protocol::{
    event::{InvalidEvent, NodeEvent},
    time::Timestamp,
};
use metrics::counter;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use crate::store::{Store, StoreError};
use news::News;
use signature::{Unverified, WebhookKey};

/// More dashboards than this are no small deployment's.
const MAX_DASHBOARDS: usize = 1024;

/// Receives, verifies, keeps and shows events.
pub(crate) struct Noti {
    store: Store,
    bearer: SecretString,
    key: WebhookKey,
    news: News,
    /// Of web pages that may watch.
    origins: Vec<String>,
    /// How long a dashboard may take to read what was sent.
    patience: Duration,
    /// One for each dashboard.
    pub seats: Arc<Semaphore>,
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
    /// `api` is this controller's own address, whose pages may always watch.
    pub(crate) fn new(
        store: Store,
        bearer: SecretString,
        key: WebhookKey,
        api: &str,
        mut origins: Vec<String>,
        patience: Duration,
    ) -> Self {
        origins.extend(Url::parse(api).map(|url| url.origin().ascii_serialization()));
        Self {
            store,
            bearer,
            key,
            news: News::default(),
            origins,
            patience,
            seats: Arc::new(Semaphore::new(MAX_DASHBOARDS)),
        }
    }

    /// Whether `token` opens this NOTI.
    pub(crate) fn admits(&self, token: &str) -> bool {
        signature::same(self.bearer.expose_secret(), token)
    }

    /// Whether pages of this origin may watch.
    pub(crate) fn welcomes_page_of(&self, origin: &str) -> bool {
        self.origins.iter().any(|it| it == origin)
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
        let id = self.key.verify(signed, body, now)?;
        let event: NodeEvent = serde_json::from_slice(body).map_err(NotKept::NoEvent)?;
        event.check()?;
        let new = self.store.receive(id, &event, now).await?;
        if new {
            self.news.tell(&event.owner().org_id);
        }
        Ok(new)
    }
}
