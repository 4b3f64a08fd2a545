//! Where the daemon finds its installed token. A file is read again before every connection, so that a
//! new token is used without a restart. Whether the token is good is the controller's to say: an expired
//! one is no error here.

use std::path::{Path, PathBuf};

use aio_host::token::{self, NodeToken, TokenError};
use secrecy::SecretString;

/// Where the token is.
#[derive(Debug, Clone)]
pub enum TokenSource {
    /// Given once and for all.
    Given(SecretString),
    /// In a file, which may change.
    File(PathBuf),
}

impl TokenSource {
    /// Standard input, read to its end.
    pub fn from_stdin() -> Result<Self, TokenError> {
        Ok(Self::Given(token::read(std::io::stdin().lock(), Path::new("-"))?))
    }

    /// Whether the token may change while the daemon runs.
    pub fn may_change(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// The token as it is now.
    pub fn read(&self) -> Result<NodeToken, TokenError> {
        Ok(match self {
            Self::Given(secret) => NodeToken::parse(secret)?,
            Self::File(path) => NodeToken::parse(&token::read_file(path)?)?,
        })
    }
}
