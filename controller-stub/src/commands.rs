//! What the commands beside `serve` do, on the database and the secrets of a data folder, whether its server runs or not.

mod nodes;
mod releases;

use aio_protocol::{
    error_code::ErrorCode,
    ids::{InvalidId, NodeId, OwnerId},
    node::{NodeRole, Owner},
    time::Timestamp,
};
use serde::Serialize;
use std::sync::Arc;

use crate::{
    clock,
    config::Config,
    deployment::Deployment,
    enrolment::{Enroller, EnrolmentError, Others},
    lifecycle,
    node::{Node, NodeName},
    random::{self, NoRandomness},
    releases::Releases,
    secrets::{Secrets, SecretsError},
    store::{SqlStore, Store, StoreError},
    tls::{Authority, TlsError},
    tokens::{Tokens, Unsigned},
};

pub use crate::releases::{ImportError, Imported, Outcome};
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

/// Why a command has done nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The node's name cannot be one.
    #[error("the name {0}")]
    Name(&'static str),
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
            Self::Name(_) => ErrorCode::Usage,
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

/// Registers a node of each name and makes its token. A name that cannot be one is found before anything is registered.
pub async fn add_nodes(
    config: &Config,
    names: Vec<String>,
    whose: For,
    lasts_secs: u64,
) -> Result<Vec<AddedNode>, CommandError> {
    let names = names.into_iter().map(NodeName::try_from).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(CommandError::Name)?;
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
    let enroller = Enroller {
        tokens,
        releases: Releases::new(deployment.releases.clone(), deployment.checksums.clone()),
        deployment,
        store: store.clone(),
    };
    let mut added = Vec::with_capacity(names.len());
    for name in names {
        let now = clock::now();
        let node = Node::registered(
            random::object_id(now)?,
            name.into(),
            vec![NodeRole::Worker],
            owner.clone(),
            now,
        );
        lifecycle::register(&*store, &node, "command line").await?;
        let enrolment = enroller.enrol(&node, None, lasts_secs, Others::Stay, now).await?;
        added.push(AddedNode {
            node_id: node.id.to_string(),
            owner: node.owner,
            command: format!("sudo aio-worker install --token {}", enrolment.token),
            token: enrolment.token,
            expires_at: enrolment.expires_at,
            install_script: enrolment.install_script,
        });
    }
    Ok(added)
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
