//! Why a release was not fetched.

use std::{io, path::PathBuf, time::Duration};

use aio_protocol::{error_code::ErrorCode, release::ReleaseVersion, time::Timestamp};

use crate::releases::folder::ImportError;

/// Why a release was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The source is not written as one.
    #[error("--from {text}: {problem}")]
    Place {
        /// What was said.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Tokens and releases would cross a network in the clear.
    #[error("--from {0}: plain http is for this machine alone")]
    InsecureUrl(String),
    /// The file of the token cannot be used.
    #[error("the token file {path} {problem}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// Whether that others may read it.
        exposed: bool,
    },
    /// Nothing would vouch for what is fetched.
    #[error("RELEASE_PUBLIC_KEY is not configured, and only signed releases are fetched")]
    NoKey,
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// The source wants to be asked later.
    #[error("{url} answers {status}: too many requests{}", wait(.retry_after))]
    Limited {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// When to come again, where it says so.
        retry_after: Option<Duration>,
    },
    /// The source does not give it to this token, or to nobody.
    #[error("{url} answers {status}: the token is missing, wrong, or does not allow it")]
    Refused {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
    },
    /// There is no such file.
    #[error("there is no {0}")]
    Absent(String),
    /// The source answers otherwise.
    #[error("{url} answers {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
    },
    /// No answer, or it broke off.
    #[error("cannot read {url}")]
    Transport {
        /// What was asked for.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer is larger than it may be.
    #[error("{url} has more than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The most that it may have.
        limit: u64,
    },
    /// An answer is shorter than its file is said to be.
    #[error("{url} ends after {size} bytes, and {expected} were expected")]
    Truncated {
        /// What was asked for.
        url: String,
        /// What came.
        size: u64,
        /// What the manifest says.
        expected: u64,
    },
    /// The release has not the file that its sums list.
    #[error("release {version} of {place} has no file {name}")]
    Incomplete {
        /// The version.
        version: ReleaseVersion,
        /// The source.
        place: String,
        /// The file.
        name: String,
    },
    /// There is nothing to fetch.
    #[error("{place} has no {what}")]
    Nothing {
        /// The source.
        place: String,
        /// What is missing.
        what: String,
    },
    /// The index holds no more.
    #[error("the index of releases expired at {0}")]
    Expired(Timestamp),
    /// Another fetch runs.
    #[error("another fetch is under way: {0} is locked")]
    Locked(PathBuf),
    /// What came is not taken over.
    #[error(transparent)]
    Import(#[from] ImportError),
}

fn wait(retry_after: &Option<Duration>) -> String {
    retry_after.map(|wait| format!("; it may be asked again in {} s", wait.as_secs())).unwrap_or_default()
}

impl FetchError {
    /// The catalogue's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Place { .. } => ErrorCode::Usage,
            Self::InsecureUrl(_) => ErrorCode::InsecureUrl,
            Self::TokenFile { exposed: true, .. } => ErrorCode::SecretExposed,
            Self::TokenFile { .. } | Self::Locked(_) => ErrorCode::FileFailed,
            Self::NoKey => ErrorCode::ConfigInvalid,
            Self::Client(_)
            | Self::Limited { .. }
            | Self::Refused { .. }
            | Self::Status { .. }
            | Self::Transport { .. } => ErrorCode::DownloadFailed,
            Self::Absent(_) | Self::Nothing { .. } => ErrorCode::ReleaseNotFound,
            Self::Expired(_) => ErrorCode::IndexExpired,
            Self::TooLarge { .. } | Self::Truncated { .. } => ErrorCode::SizeMismatch,
            Self::Incomplete { .. } => ErrorCode::ReleaseInvalid,
            Self::Import(error) => error.code(),
        }
    }

    /// Whether the same request may succeed at once.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::Truncated { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// Whether what came before the error is worth keeping.
    pub(super) fn may_be_resumed(&self) -> bool {
        !matches!(self, Self::TooLarge { .. } | Self::Import(_))
    }

    /// When the source wants to be asked again, where it says so.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limited { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

pub(super) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.to_owned();
    move |source| ImportError::Io { action, path, source }.into()
}
