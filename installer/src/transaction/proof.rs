//! The proof that an installation was right: the controller has acknowledged a heartbeat of the
//! worker. Changes nothing, so there is nothing to undo.

use std::time::Duration;

use aio_protocol::ids::NodeId;

use crate::{
    controller::online::{self, Snapshot},
    failure::Failure,
    machine::host::Host,
};

/// Waits for the first acknowledged heartbeat.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) node: NodeId,
    pub(crate) patience: Duration,
}

impl Proof {
    /// Its word in logs, reports and the journal, beside those of the steps.
    pub(crate) const NAME: &'static str = "await_online";

    /// What it does: one line for a person.
    pub(crate) const SUMMARY: &'static str = "wait until the controller has acknowledged a heartbeat";

    /// How the worker is once it is online.
    pub(crate) async fn prove(&self, host: &Host) -> Result<Snapshot, Failure> {
        online::settled(host, &self.node, self.patience).await
    }
}
