//! Why a command has done nothing.

use std::time::Duration;

use aio_protocol::{
    error_code::ErrorCode,
    ids::{InvalidId, NodeId},
    release::{Platform, ReleaseVersion},
};

use super::names;
use crate::{
    enrolment::EnrolmentError,
    random::NoRandomness,
    releases::{FetchError, ImportError},
    rollouts::OrderError,
    secrets::SecretsError,
    store::StoreError,
    tls::TlsError,
    tokens::Unsigned,
    webhooks::changes::Refusal,
};

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
    /// There is no such rollout.
    #[error("there is no rollout{}", .0.map(|id| format!(" {id}")).unwrap_or_default())]
    NoRollout(Option<uuid::Uuid>),
    /// There is no such alarm.
    #[error("there is no alarm {0}")]
    NoAlarm(uuid::Uuid),
    /// The silence cannot be one.
    #[error("{0}")]
    Silence(String),
    /// The webhook cannot be one.
    #[error("{0}")]
    Webhook(String),
    /// There is no such webhook.
    #[error("there is no webhook {0}")]
    NoWebhook(uuid::Uuid),
    /// What is asked of a rollout cannot be done.
    #[error("{message}")]
    Rollout {
        /// The catalogue's code.
        code: ErrorCode,
        /// What cannot be done, and why.
        message: String,
    },
    /// A release is not taken over.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A release was not fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
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
    /// When it may be tried again, where somebody else has said so.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        if let Self::Fetch(error) = self { error.retry_after() } else { None }
    }

    /// The catalogue's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Name(_)
            | Self::Twice(_)
            | Self::Taken(_)
            | Self::NoHost(_)
            | Self::SeveralMachines(_)
            | Self::Label(_)
            | Self::Silence(_)
            | Self::Webhook(_)
            | Self::Numbers(_) => ErrorCode::Usage,
            Self::NameTaken(_) => ErrorCode::NameTaken,
            Self::NoScript(_) | Self::NotPublished { .. } => ErrorCode::ReleaseNotFound,
            Self::NeverServed | Self::NoReleases => ErrorCode::ConfigInvalid,
            Self::ReleaseKey => ErrorCode::ReleaseKeyInvalid,
            Self::Import(error) => error.code(),
            Self::Fetch(error) => error.code(),
            Self::NoRollout(_) | Self::NoAlarm(_) | Self::NoWebhook(_) => ErrorCode::NotFound,
            Self::Rollout { code, .. } => *code,
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

impl From<Refusal> for CommandError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Store(error) => error.into(),
            Refusal::Random(error) => error.into(),
            Refusal::NoSuch(id) => Self::NoWebhook(id),
            refusal => Self::Webhook(refusal.to_string()),
        }
    }
}

impl From<OrderError> for CommandError {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Store(error) => error.into(),
            error => Self::Rollout { code: error.code(), message: error.to_string() },
        }
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
