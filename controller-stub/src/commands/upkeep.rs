//! What an operator does once in a while, behind the back of a server that may run: dropping decommissioned
//! nodes, and revoking whatever was issued before a time, after a backup was restored that does not know what
//! was revoked since.

use std::time::Duration;

use aio_protocol::{ids::OwnerId, time::Timestamp};
use serde_json::json;

use super::{CommandError, For, on_command_line, open};
use crate::{clock, config::Config, store::Store};

/// Nodes that are dropped in one change, so that a server that runs does not wait long.
const BATCH: u64 = 200;

/// Whose nodes.
#[derive(Debug, Clone)]
pub enum Concerned {
    /// One organisation's.
    One(For),
    /// Every organisation's.
    All,
}

/// Drops nodes that were decommissioned at least `age` ago, with their tokens and moves, and says
/// how many. A node that owes an event stays.
pub async fn purge_nodes(
    config: &Config,
    concerned: Concerned,
    age: Duration,
    dry_run: bool,
) -> Result<u64, CommandError> {
    let store = open(config).await?;
    let before = clock::now().minus(age);
    let mut purged = 0;
    for org in concerned.organisations(&store).await? {
        let nodes = store.purgeable(Some(&org), before).await?;
        if dry_run || nodes == 0 {
            purged += nodes;
            continue;
        }
        let detail = json!({ "decommissionedBefore": before, "nodes": nodes });
        let recorded = on_command_line(&store, &org, "node.purge", None, Some(detail));
        loop {
            match recorded.purge_nodes(Some(&org), before, BATCH).await? {
                0 => break,
                some => purged += some,
            }
        }
    }
    Ok(purged)
}

/// Revokes every token that was issued before `before`, by whomever, and says how many nodes are
/// concerned. A server that runs closes their workers' connections within a few seconds.
pub async fn revoke_issued_before(
    config: &Config,
    concerned: Concerned,
    before: Timestamp,
    dry_run: bool,
) -> Result<u64, CommandError> {
    let store = open(config).await?;
    let mut revoked = 0;
    for org in concerned.organisations(&store).await? {
        let nodes = store.nodes_with_tokens_before(&org, before).await?;
        if dry_run {
            revoked += nodes;
            continue;
        }
        let detail = json!({ "issuedBefore": before, "nodes": nodes });
        let recorded = on_command_line(&store, &org, "token.revoke", None, Some(detail));
        revoked += recorded.revoke_issued_before(&org, before, clock::now()).await?;
    }
    Ok(revoked)
}

impl Concerned {
    async fn organisations(self, store: &Store) -> Result<Vec<OwnerId>, CommandError> {
        match self {
            Self::One(whose) => Ok(vec![whose.or_default(store).await?.org_id]),
            Self::All => Ok(store.organisations().await?),
        }
    }
}
