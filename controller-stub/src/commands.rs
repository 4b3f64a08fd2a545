//! What the commands beside `serve` do, on the database and the secrets of a data folder, whether its server runs or not.

mod cloud_init;
mod inventory;
mod names;
mod nodes;
mod releases;

use aio_protocol::{
    error_code::ErrorCode,
    ids::{InvalidId, NodeId, OwnerId},
    node::{NodeRole, Owner},
    release::ReleaseVersion,
    time::Timestamp,
};
use serde::Serialize;
use std::sync::Arc;

use crate::{
    clock,
    config::Config,
    deployment::Deployment,
    enrolment::{Enroller, EnrolmentError},
    lifecycle,
    node::{Node, NodeName},
    random::{self, NoRandomness},
    releases::Releases,
    secrets::{Secrets, SecretsError},
    store::{Newcomer, SqlStore, Store, StoreError},
    tls::{Authority, TlsError},
    tokens::{Tokens, Unsigned},
};

pub use crate::releases::{ImportError, Imported, Outcome};
pub use cloud_init::user_data;
pub use inventory::inventory;
pub use names::{hosts, numbered, one_machine};
pub use nodes::{ListedNode, list_nodes, revoke_tokens};
pub use releases::{ListedRelease, add_releases, list_releases};

/// The settings that outlive a server.
const DEPLOYMENT: &str = "deployment";
const DEFAULT_OWNER: &str = "default_owner";

/// Who a token or a node is for; what is not said is the default owner that the data folder's first start made.
#[derive(Debug, Clone, Default)]
pub struct For {
    /// The organisation.
    pub org: Option<OwnerId>,
    /// The user.
    pub user: Option<OwnerId>,
}

/// A node that was registered from the command line.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddedNode {
    /// The node.
    pub node_id: String,
    /// Its name.
    pub name: String,
    /// Who it belongs to.
    pub owner: Owner,
    /// Its token: a secret.
    pub token: String,
    /// When the token ends.
    pub expires_at: Timestamp,
    /// The one command to run on the node; it holds the token.
    pub command: String,
    /// The same for a machine that has nothing yet, if the release's installer is published.
    pub install_script: Option<String>,
}

/// What is to be registered together.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The nodes' names.
    pub names: Vec<String>,
    /// Whose they are.
    pub whose: For,
    /// How long their tokens last.
    pub lasts_secs: u64,
    /// Whether nodes without an install script are of no use.
    pub script_needed: bool,
}

/// Nodes that were registered together.
pub struct Added {
    /// In the order of their names on the command line.
    pub nodes: Vec<AddedNode>,
    /// The certificate (PEM) that they are to trust the controller by, where the authority is the controller's own.
    pub authority: Option<String>,
}

/// Why a command has done nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The node's name cannot be one.
    #[error("the name {0}")]
    Name(&'static str),
    /// A name stands twice.
    #[error("the name `{0}` stands twice, and every node needs one of its own; nothing was registered")]
    Twice(String),
    /// Nodes in service have these names.
    #[error("{} registered already, so nothing was registered; with --count, --first goes on from another number", names::listed(.0))]
    Taken(Vec<String>),
    /// The node's name can be no host of an inventory.
    #[error(
        "the name `{0}` can be no host of an inventory: letters, digits, `-`, `_` and `.` can; nothing was registered"
    )]
    NoHost(String),
    /// User-data is for one machine.
    #[error("user-data is for one machine, and {0} nodes are named; nothing was registered")]
    SeveralMachines(usize),
    /// There is no install script.
    #[error(
        "there is no install script, because the files of release {0} are not published; nothing was registered"
    )]
    NotPublished(ReleaseVersion),
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
    NoNode(NodeId),
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
            | Self::Numbers(_) => ErrorCode::Usage,
            Self::NotPublished(_) => ErrorCode::ReleaseNotFound,
            Self::NeverServed | Self::NoReleases => ErrorCode::ConfigInvalid,
            Self::ReleaseKey => ErrorCode::ReleaseKeyInvalid,
            Self::Import(error) => error.code(),
            Self::NoNode(_) => ErrorCode::NodeNotFound,
            Self::Unsigned(error) => error.code(),
            Self::Secrets(error) => error.code(),
            Self::DataDir(_) => ErrorCode::FileFailed,
        }
    }
}

impl From<EnrolmentError> for CommandError {
    fn from(error: EnrolmentError) -> Self {
        match error {
            EnrolmentError::Unsigned(error) => error.into(),
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

of_the_data_dir!(StoreError, TlsError, NoRandomness, InvalidId, serde_json::Error);

/// A token for a user of the API.
pub async fn user_token(
    config: &Config,
    whose: For,
    roles: Vec<String>,
    lasts_secs: u64,
) -> Result<String, CommandError> {
    let tokens = Tokens::new(Secrets::load(config)?.tokens);
    let owner = match whose {
        For { org: Some(org_id), user: Some(user_id) } => Owner { org_id, user_id },
        whose => whose.or_default(&open(config).await?).await?,
    };
    Ok(tokens.sign_user(owner.user_id, owner.org_id, roles, clock::now(), lasts_secs)?)
}

/// Registers a node of each name and makes its token: all in one transaction, or nothing. A name that cannot be one, that stands twice, or
/// that a node in service has, refuses them all.
pub async fn add_nodes(config: &Config, wanted: Wanted) -> Result<Added, CommandError> {
    let Wanted { names, whose, lasts_secs, script_needed } = wanted;
    let names = names.into_iter().map(NodeName::try_from).collect::<Result<Vec<_>, _>>();
    let names = names::each_once(names.map_err(CommandError::Name)?)?;
    let tokens = Tokens::new(Secrets::load(config)?.tokens);
    tokens.require_signing()?;
    let store: Arc<dyn Store> = Arc::new(open(config).await?);
    let deployment = match store.setting(DEPLOYMENT).await? {
        Some(text) => serde_json::from_str(&text)?,
        None if config.public_url.is_some() => {
            let own = config.tls_self_signed.then(|| Authority::open(&config.data_dir)).transpose()?;
            Deployment::new(config, config.listen, own.map(|own| own.published()))
        }
        None => return Err(CommandError::NeverServed),
    };
    let owner = whose.or_default(&*store).await?;
    let authority = deployment.authority.as_ref().map(|authority| authority.pem.clone());
    let enroller = Enroller {
        tokens,
        releases: Releases::new(deployment.releases.clone(), deployment.checksums.clone()),
        deployment,
        store: store.clone(),
    };
    let (mut newcomers, mut nodes) = (Vec::with_capacity(names.len()), Vec::with_capacity(names.len()));
    for name in names {
        let now = clock::now();
        let id = random::object_id(now)?;
        let node = Node::registered(id, name, vec![NodeRole::Worker], owner.clone(), now);
        let (enrolment, token) = enroller.draw_up(&node, None, lasts_secs, now).await?;
        if script_needed && enrolment.install_script.is_none() {
            return Err(CommandError::NotPublished(enrolment.daemon_version));
        }
        nodes.push(AddedNode {
            node_id: node.id.to_string(),
            name: node.name.clone(),
            owner: node.owner.clone(),
            command: format!("sudo aio-worker install --token {}", enrolment.token),
            token: enrolment.token,
            expires_at: enrolment.expires_at,
            install_script: enrolment.install_script,
        });
        let step = lifecycle::registration(&node, "command line");
        newcomers.push(Newcomer { node, step, token });
    }
    let taken = store.enrol_nodes(&newcomers).await?;
    if !taken.is_empty() {
        return Err(CommandError::Taken(taken));
    }
    Ok(Added { nodes, authority })
}

async fn open(config: &Config) -> Result<SqlStore, CommandError> {
    Ok(SqlStore::open(config.database_url.as_deref(), &config.data_dir).await?)
}

/// Keeps what the server tells nodes of itself, for the commands.
pub(crate) async fn remember(store: &dyn Store, deployment: &Deployment) -> Result<(), CommandError> {
    Ok(store.put_setting(DEPLOYMENT, &serde_json::to_string(deployment)?).await?)
}

/// The owner of what nobody else is said to own: made once.
pub(crate) async fn default_owner(store: &dyn Store) -> Result<Owner, CommandError> {
    let now = clock::now();
    let made = Owner {
        org_id: random::object_id(now)?.as_str().parse()?,
        user_id: random::object_id(now)?.as_str().parse()?,
    };
    let settled = store.settle(DEFAULT_OWNER, &serde_json::to_string(&made)?).await?;
    Ok(serde_json::from_str(&settled)?)
}

impl For {
    async fn or_default(self, store: &dyn Store) -> Result<Owner, CommandError> {
        let default = default_owner(store).await?;
        Ok(Owner {
            org_id: self.org.unwrap_or(default.org_id),
            user_id: self.user.unwrap_or(default.user_id),
        })
    }
}
