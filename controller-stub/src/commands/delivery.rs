//! Events on their way to NOTI, from the command line: how they stand, and trying now what waits. A server
//! that runs hears of it within a second or so.

use aio_protocol::time::Timestamp;
use serde::Serialize;

use super::{CommandError, For, on_command_line, open};
use crate::{
    clock,
    config::Config,
    outbox::{RESUME_SETTING, STATE_SETTING},
};

/// How delivery stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliverySummary {
    /// `running`, `paused`, `probing` or `stopped`, as the server said last; `null` when none has
    /// run on this folder.
    pub state: Option<String>,
    /// Events that NOTI has not acknowledged.
    pub waiting: u64,
    /// When the oldest of them was noticed.
    pub oldest: Option<Timestamp>,
    /// Events that were given up.
    pub dead: u64,
}

/// Says how delivery stands.
pub async fn show_delivery(config: &Config) -> Result<DeliverySummary, CommandError> {
    let store = open(config).await?;
    let backlog = store.backlog().await?;
    Ok(DeliverySummary {
        state: store.setting(STATE_SETTING).await?,
        waiting: backlog.events,
        oldest: backlog.oldest.map(|(_, at)| at),
        dead: backlog.dead,
    })
}

/// Has the server try every event now that waits, whatever it waits for.
pub async fn resume_delivery(config: &Config) -> Result<(), CommandError> {
    let store = open(config).await?;
    let org = For::default().or_default(&store).await?.org_id;
    let recorded = on_command_line(&store, &org, "delivery.resume", None, None);
    recorded.put_setting(RESUME_SETTING, &clock::now().to_string()).await?;
    store.close().await;
    Ok(())
}
