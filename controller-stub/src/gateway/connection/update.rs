//! What a connection tells its worker of rollouts: at its registration, and when a rollout has moved. What is
//! owed is asked of the database each time, so nothing is lost with a connection or a process.

use aio_protocol::wire::PendingCommand;
use uuid::Uuid;

use super::{Connection, End};
use crate::{
    rollout::Told,
    rollouts::{join, owed_to},
};

impl Connection {
    /// A node that came after its rollout had begun belongs to it from now on.
    pub(super) async fn join_rollout(&mut self) -> Result<(), End> {
        join(&self.app, &self.node).await.map_err(|error| self.unstored(&error))
    }

    /// What the worker is to be told, each with the id of its message.
    pub(super) async fn owed(&mut self) -> Result<Vec<(Uuid, Told)>, End> {
        let owed = owed_to(&self.app, &self.node).await.map_err(|error| self.unstored(&error))?;
        Ok(owed.into_iter().map(|told| (Uuid::now_v7(), told)).collect())
    }

    /// A rollout of the node has moved.
    pub(super) async fn tell(&mut self) -> Result<(), End> {
        if self.newcomer.is_some() || !self.app.registry.speaks(&self.node, self.epoch) {
            return Ok(());
        }
        for (_, told) in self.owed().await? {
            match told {
                Told::Offer(offer) => self.say(&offer).await?,
                Told::Permit(permit) => self.say(&permit).await?,
                Told::Cancel(cancel) => self.say(&cancel).await?,
            }
        }
        Ok(())
    }
}

impl Told {
    /// As a command of a `register.ack`.
    pub(super) fn pending(&self, message_id: Uuid) -> Option<PendingCommand> {
        use aio_protocol::wire::{Body, NodeUpdate, UpdateCancel, UpdatePermit};
        let (kind, data) = match self {
            Self::Offer(offer) => (NodeUpdate::TYPE, serde_json::to_value(offer)),
            Self::Permit(permit) => (UpdatePermit::TYPE, serde_json::to_value(permit)),
            Self::Cancel(cancel) => (UpdateCancel::TYPE, serde_json::to_value(cancel)),
        };
        Some(PendingCommand { message_id, kind: kind.to_owned(), data: data.ok()? })
    }
}
