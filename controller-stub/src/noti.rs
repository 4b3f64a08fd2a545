//! The built-in NOTI: what `POST /events` demands before it keeps an event. The wire form is the Standard Webhooks specification.

pub(crate) mod signature;

use std::sync::Arc;

use aio_protocol::{event::NodeEvent, time::Timestamp};
use secrecy::{ExposeSecret, SecretString};

use crate::store::{Store, StoreError};
use signature::{Unverified, WebhookKey};

/// Receives, verifies and keeps events.
pub(crate) struct Noti {
    store: Arc<dyn Store>,
    bearer: SecretString,
    key: WebhookKey,
}

/// Why an event was not kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotKept {
    #[error(transparent)]
    Unverified(#[from] Unverified),
    #[error("the body is no node event: {0}")]
    NoEvent(#[source] serde_json::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Noti {
    pub(crate) fn new(store: Arc<dyn Store>, bearer: SecretString, key: WebhookKey) -> Self {
        Self { store, bearer, key }
    }

    /// Whether `token` opens this NOTI.
    pub(crate) fn admits(&self, token: &str) -> bool {
        signature::same(self.bearer.expose_secret(), token)
    }

    /// Verifies `body` as it came over the wire and keeps the event; says whether it is new.
    pub(crate) async fn receive(
        &self,
        signed: signature::Headers<'_>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<bool, NotKept> {
        let id = self.key.verify(signed, body, now)?;
        let event: NodeEvent = serde_json::from_slice(body).map_err(NotKept::NoEvent)?;
        Ok(self.store.receive(id, &event, now).await?)
    }
}
