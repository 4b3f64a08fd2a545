//! The controllers that serve a database together, from the command line.

use aio_protocol::time::Timestamp;
use serde::Serialize;

use super::{CommandError, open};
use crate::{config::Config, store::Controller};

/// A controller that serves the database together with others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ControllerSummary {
    /// Of this start of it; no other has it.
    pub number: i64,
    /// What its machine is called.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Its version.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it was heard of last, by the database's clock.
    pub beaten_at: Timestamp,
    /// Whether it does what is done once.
    pub leads: bool,
    /// How many workers are connected to it.
    pub workers: i64,
}

/// Lists them, the oldest first; none where one serves alone.
pub async fn list_controllers(config: &Config) -> Result<Vec<ControllerSummary>, CommandError> {
    let store = open(config).await?;
    let controllers = store.controllers().await?;
    store.close().await;
    Ok(controllers.into_iter().map(ControllerSummary::from).collect())
}

impl From<Controller> for ControllerSummary {
    fn from(controller: Controller) -> Self {
        let Controller { number, name, address, version, started_at, beaten_at, leads, workers } = controller;
        Self { number, name, address, version, started_at, beaten_at, leads, workers }
    }
}
