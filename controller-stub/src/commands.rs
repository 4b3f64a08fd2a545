//! What the commands beside `serve` do, on the database and the secrets of a data folder, whether its server
//! runs or not.

mod alarms;
mod audit;
mod cloud_init;
mod controllers;
mod delivery;
mod enrol;
mod error;
mod inventory;
#[cfg(feature = "pages")]
mod login;
mod migrate;
mod names;
mod nodes;
mod own_program;
mod releases;
mod rollouts;
mod upkeep;
mod webhooks;

use std::time::Duration;

use aio_protocol::{
    ids::{NodeId, OwnerId},
    node::Owner,
};
use serde_json::{Value, json};

use crate::{
    clock,
    config::Config,
    deployment::Deployment,
    random,
    secrets::Secrets,
    store::{AuditEntry, Place, Store},
    tokens::Tokens,
};

pub use crate::releases::{FetchError, Import, ImportError, Imported, IndexSummary, Outcome, ReleaseSource};
pub(crate) use alarms::{SilenceOf, acknowledge_alarm, add_silence, list_alarms};
pub use audit::{AuditFilter, AuditFormat, audit};
pub use cloud_init::user_data;
pub use controllers::{ControllerSummary, list_controllers};
pub use delivery::{DeliverySummary, resume_delivery, show_delivery};
pub use enrol::{Added, AddedNode, Issue, Purpose, Which, add_nodes, add_tokens};
pub use error::CommandError;
pub use inventory::inventory;
#[cfg(feature = "pages")]
pub use login::{end_sessions, login_link};
pub use migrate::{CarriedTable, migrate};
pub use names::numbered;
pub use nodes::{Listed, ListedNode, NodeChange, change_node, list_nodes, revoke_tokens};
pub use own_program::{SelfUpdate, SelfUpdateError, Updated, self_update};
pub use releases::{ListedRelease, ReleaseList, add_releases, fetch_releases, list_releases};
pub(crate) use rollouts::{
    create_first_rollout, create_rollout, list_rollouts, order_rollout, pin_node, plan_rollout,
    rollout_nodes, show_rollout, update_node,
};
pub use upkeep::{Concerned, purge_nodes, revoke_issued_before};
pub(crate) use webhooks::{
    WebhookOrder, add_webhook, list_webhooks, order_webhook, rotate_webhook, test_webhook, webhook_attempts,
};

/// The settings that outlive a server.
const DEPLOYMENT: &str = "deployment";
const DEFAULT_OWNER: &str = "default_owner";

/// Whoever has a user's token that lasts a week or longer is told before its end.
const LASTING_SECS: u64 = 7 * 86_400;

/// Who does what a command does, as audit trails and transitions name them.
const COMMAND_LINE: &str = "command line";

/// Who a token or a node is for; what is not said is the default owner that the data folder's first
/// start made.
#[derive(Debug, Clone, Default)]
pub struct For {
    /// The organisation.
    pub org: Option<OwnerId>,
    /// The user.
    pub user: Option<OwnerId>,
}

/// A token for a user of the API.
pub async fn user_token(
    config: &Config,
    whose: For,
    roles: Vec<String>,
    lasts_secs: u64,
) -> Result<String, CommandError> {
    let tokens = Tokens::new(Secrets::load(config)?.tokens);
    let store = open(config).await?;
    let owner = match whose {
        For { org: Some(org_id), user: Some(user_id) } => Owner { org_id, user_id },
        whose => whose.or_default(&store).await?,
    };
    let detail = json!({ "user": owner.user_id, "roles": roles, "expiresIn": lasts_secs });
    let recorded = on_command_line(&store, &owner.org_id, "user_token.issue", None, Some(detail));
    let (user, org) = (owner.user_id.clone(), owner.org_id.clone());
    let token = tokens.sign_user(user, org, roles, clock::now(), lasts_secs)?;
    if lasts_secs >= LASTING_SECS {
        let (issued_at, lasts) = (clock::now(), Duration::from_secs(lasts_secs));
        recorded.note_user_token(&owner, issued_at, issued_at.plus(lasts)).await?;
    }
    recorded.record_outcome("done").await?;
    store.close().await;
    Ok(token)
}

/// The store for a command that changes something: its first change is recorded, with the operating
/// system's user.
fn on_command_line(
    store: &Store,
    org: &OwnerId,
    action: &'static str,
    node: Option<&NodeId>,
    detail: Option<Value>,
) -> Store {
    let mut detail = detail.unwrap_or_else(|| json!({}));
    if let Some(detail) = detail.as_object_mut() {
        detail.insert("uid".to_owned(), rustix::process::getuid().as_raw().into());
    }
    store.on_behalf(AuditEntry {
        at: clock::now(),
        org: org.clone(),
        actor: COMMAND_LINE.to_owned(),
        roles: Vec::new(),
        address: None,
        action,
        node: node.cloned(),
        target: None,
        detail: Some(detail),
    })
}

async fn open(config: &Config) -> Result<Store, CommandError> {
    Ok(Store::open(&Place::of(config)?).await?)
}

/// Keeps what the server tells nodes of itself, for the commands.
pub(crate) async fn remember(store: &Store, deployment: &Deployment) -> Result<(), CommandError> {
    Ok(store.put_setting(DEPLOYMENT, &serde_json::to_string(deployment)?).await?)
}

/// The owner of what nobody else is said to own: made once.
pub(crate) async fn default_owner(store: &Store) -> Result<Owner, CommandError> {
    // A command that only reads waits for nobody who writes.
    if let Some(settled) = store.setting(DEFAULT_OWNER).await? {
        return Ok(serde_json::from_str(&settled)?);
    }
    let now = clock::now();
    let made = Owner {
        org_id: random::object_id(now)?.as_str().parse()?,
        user_id: random::object_id(now)?.as_str().parse()?,
    };
    let settled = store.settle(DEFAULT_OWNER, &serde_json::to_string(&made)?).await?;
    Ok(serde_json::from_str(&settled)?)
}

impl For {
    async fn or_default(self, store: &Store) -> Result<Owner, CommandError> {
        let default = default_owner(store).await?;
        Ok(Owner {
            org_id: self.org.unwrap_or(default.org_id),
            user_id: self.user.unwrap_or(default.user_id),
        })
    }
}
