//! What the commands beside `serve` do, on the database and the secrets of a data folder, whether its server runs or not.

mod audit;
mod cloud_init;
mod delivery;
mod enrol;
mod inventory;
mod names;
mod nodes;
mod releases;
mod upkeep;

use aio_protocol::{
    error_code::ErrorCode,
    ids::{InvalidId, NodeId, OwnerId},
    node::Owner,
    release::{Platform, ReleaseVersion},
};

use serde_json::{Value, json};

use crate::{
    clock,
    config::Config,
    deployment::Deployment,
    enrolment::EnrolmentError,
    random::{self, NoRandomness},
    secrets::{Secrets, SecretsError},
    store::{AuditEntry, Place, Store, StoreError},
    tls::TlsError,
    tokens::{Tokens, Unsigned},
};

pub use crate::releases::{ImportError, Imported, Outcome};
pub use audit::{AuditFilter, AuditFormat, audit};
pub use cloud_init::user_data;
pub use delivery::{DeliverySummary, resume_delivery, show_delivery};
pub use enrol::{Added, AddedNode, Issue, Purpose, Which, add_nodes, add_tokens};
pub use inventory::inventory;
pub use names::numbered;
pub use nodes::{Listed, ListedNode, NodeChange, change_node, list_nodes, revoke_tokens};
pub use releases::{ListedRelease, add_releases, list_releases};
pub use upkeep::{Concerned, purge_nodes, revoke_issued_before};

/// The settings that outlive a server.
const DEPLOYMENT: &str = "deployment";
const DEFAULT_OWNER: &str = "default_owner";

/// Who does what a command does, as audit trails and transitions name them.
const COMMAND_LINE: &str = "command line";

/// Who a token or a node is for; what is not said is the default owner that the data folder's first start made.
#[derive(Debug, Clone, Default)]
pub struct For {
    /// The organisation.
    pub org: Option<OwnerId>,
    /// The user.
    pub user: Option<OwnerId>,
}

/// Why a command has done nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The node's name cannot be one.
    #[error("the name {0}")]
    Name(&'static str),
    /// A name stands twice.
    #[error("the name `{0}` stands twice, and every node needs one of its own; nothing was done")]
    Twice(String),
    /// Nodes in service have these names.
    #[error("{} registered already, so nothing was registered; with --count, --first goes on from another number", names::listed(.0))]
    Taken(Vec<String>),
    /// The node's name can be no host of an inventory.
    #[error(
        "the name `{0}` can be no host of an inventory: letters, digits, `-`, `_` and `.` can; nothing was done"
    )]
    NoHost(String),
    /// User-data is for one machine.
    #[error("user-data is for one machine, and {0} nodes are named; nothing was done")]
    SeveralMachines(usize),
    /// There is no install script.
    #[error(
        "there is no install script, because the files of release {0} are not published; nothing was done"
    )]
    NoScript(ReleaseVersion),
    /// The release that was asked for is not there.
    #[error("release {version} is not published for {platform}; nothing was done")]
    NotPublished {
        /// Its version.
        version: ReleaseVersion,
        /// For what it is missing.
        platform: Platform,
    },
    /// So many cannot be numbered.
    #[error("{0}")]
    Numbers(String),
    /// Where nodes reach the controller is not known.
    #[error(
        "no server has run on this data folder yet, so its address is unknown; start it once, or set PUBLIC_URL"
    )]
    NeverServed,
    /// There is no such node.
    #[error("there is no node {0}")]
    NoNode(String),
    /// Another node in service has the name.
    #[error("another node in service is called `{0}`; nothing was done")]
    NameTaken(String),
    /// A label cannot be one.
    #[error("labels: {0}")]
    Label(String),
    /// The node is out of service for good.
    #[error("the node {0} was decommissioned; nothing was done")]
    Inactive(NodeId),
    /// Where releases lie is not known.
    #[error("no releases folder is known: name it with --releases, or start the server with it")]
    NoReleases,
    /// The release key that the server kept cannot be read.
    #[error("RELEASE_PUBLIC_KEY, as the server has kept it, is no minisign public key")]
    ReleaseKey,
    /// A release is not taken over.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A token cannot be signed.
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
    /// A secret or a key cannot be used.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The answer cannot be written.
    #[error("cannot write the answer")]
    Output(#[from] std::io::Error),
    /// The database cannot be used.
    #[error("cannot use the database")]
    Database {
        /// The catalogue's code.
        code: ErrorCode,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something of the data folder cannot be used.
    #[error("cannot use the data folder")]
    DataDir(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl CommandError {
    /// The catalogue's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Name(_)
            | Self::Twice(_)
            | Self::Taken(_)
            | Self::NoHost(_)
            | Self::SeveralMachines(_)
            | Self::Label(_)
            | Self::Numbers(_) => ErrorCode::Usage,
            Self::NameTaken(_) => ErrorCode::NameTaken,
            Self::NoScript(_) | Self::NotPublished { .. } => ErrorCode::ReleaseNotFound,
            Self::NeverServed | Self::NoReleases => ErrorCode::ConfigInvalid,
            Self::ReleaseKey => ErrorCode::ReleaseKeyInvalid,
            Self::Import(error) => error.code(),
            Self::NoNode(_) => ErrorCode::NodeNotFound,
            Self::Inactive(_) => ErrorCode::NodeInactive,
            Self::Unsigned(error) => error.code(),
            Self::Secrets(error) => error.code(),
            Self::Database { code, .. } => *code,
            Self::Output(_) | Self::DataDir(_) => ErrorCode::FileFailed,
        }
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        Self::Database { code: error.code(), source: Box::new(error) }
    }
}

impl From<EnrolmentError> for CommandError {
    fn from(error: EnrolmentError) -> Self {
        match error {
            EnrolmentError::Store(error) => error.into(),
            EnrolmentError::Unsigned(error) => error.into(),
            EnrolmentError::NotPublished { version, platform } => Self::NotPublished { version, platform },
            error => Self::DataDir(Box::new(error)),
        }
    }
}

macro_rules! of_the_data_dir {
    ($($error:ty),*) => {
        $(impl From<$error> for CommandError {
            fn from(error: $error) -> Self {
                Self::DataDir(Box::new(error))
            }
        })*
    };
}

of_the_data_dir!(TlsError, NoRandomness, InvalidId, serde_json::Error);

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
    let token = tokens.sign_user(owner.user_id, owner.org_id, roles, clock::now(), lasts_secs)?;
    recorded.record_outcome("done").await?;
    store.close().await;
    Ok(token)
}

/// The store for a command that changes something: its first change is recorded, with the operating system's user.
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
    Ok(Store::open(&Place::of(config.database_url.as_deref(), &config.data_dir)?).await?)
}

/// Keeps what the server tells nodes of itself, for the commands.
pub(crate) async fn remember(store: &Store, deployment: &Deployment) -> Result<(), CommandError> {
    Ok(store.put_setting(DEPLOYMENT, &serde_json::to_string(deployment)?).await?)
}

/// The owner of what nobody else is said to own: made once.
pub(crate) async fn default_owner(store: &Store) -> Result<Owner, CommandError> {
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
