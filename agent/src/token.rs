//! Where the daemon finds its token, and what it says. A file is read again before every connection, so that a new token is used
//! without a restart. Whether the token is good is the controller's to say: an expired one is no error here.

use std::{
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use aio_protocol::{
    claims::{NodeClaims, UnreadableToken},
    error_code::ErrorCode,
};
use secrecy::{ExposeSecret, SecretString};

/// A token longer than this is none.
const MAX_BYTES: u64 = 16 * 1024;

/// Where the token is.
#[derive(Debug, Clone)]
pub enum TokenSource {
    /// Given once and for all.
    Given(SecretString),
    /// In a file, which may change.
    File(PathBuf),
}

/// A token and what it says.
#[derive(Debug, Clone)]
pub struct NodeToken {
    /// The text, without white space around it.
    pub secret: SecretString,
    /// What it says.
    pub claims: NodeClaims,
}

/// Why there is no usable token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Nowhere.
    #[error("no node token was given")]
    Missing,
    /// The file cannot be read.
    #[error("the token file {path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It is no token.
    #[error("the token cannot be used")]
    Invalid(#[from] UnreadableToken),
}

impl TokenError {
    /// The catalogue's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Missing | Self::Invalid(UnreadableToken::Empty) => ErrorCode::TokenMissing,
            Self::Unreadable { source, .. } if source.kind() == ErrorKind::NotFound => {
                ErrorCode::TokenMissing
            }
            Self::Unreadable { .. } => ErrorCode::FileFailed,
            Self::Invalid(_) => ErrorCode::TokenInvalid,
        }
    }
}

impl TokenSource {
    /// Standard input, read to its end.
    pub fn from_stdin() -> Result<Self, TokenError> {
        let text = read_limited(std::io::stdin().lock(), Path::new("-"))?;
        Ok(Self::Given(text.into()))
    }

    /// Whether the token may change while the daemon runs.
    pub fn may_change(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// The token as it is now.
    pub fn read(&self) -> Result<NodeToken, TokenError> {
        match self {
            Self::Given(secret) => NodeToken::parse(secret.expose_secret()),
            Self::File(path) => {
                let file = std::fs::File::open(path)
                    .map_err(|source| TokenError::Unreadable { path: path.clone(), source })?;
                NodeToken::parse(&read_limited(file, path)?)
            }
        }
    }
}

impl NodeToken {
    pub(crate) fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        Ok(Self { secret: text.into(), claims: NodeClaims::read_unverified(text)? })
    }
}

fn read_limited(input: impl Read, path: &Path) -> Result<String, TokenError> {
    let mut bytes = Vec::new();
    input
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|source| TokenError::Unreadable { path: path.to_owned(), source })?;
    // Neither binary data nor the head of something endless is a token.
    String::from_utf8(bytes).map_err(|_| UnreadableToken::Shape.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_token_is_named_by_its_code_and_never_shown() {
        for (text, code) in [
            ("", ErrorCode::TokenMissing),
            (" \n", ErrorCode::TokenMissing),
            ("abc.def", ErrorCode::TokenInvalid),
        ] {
            let error = TokenSource::Given(text.into()).read().unwrap_err();
            assert_eq!(error.code(), code, "{text:?}");
            assert!(!format!("{error:?}").contains("abc"), "{error:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_and_one_that_is_no_text_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let source = TokenSource::File(path.clone());
        assert_eq!(source.read().unwrap_err().code(), ErrorCode::TokenMissing);
        std::fs::write(&path, [0xff; 100_000]).unwrap();
        assert_eq!(source.read().unwrap_err().code(), ErrorCode::TokenInvalid);
        assert_eq!(TokenSource::File(folder.path().into()).read().unwrap_err().code(), ErrorCode::FileFailed);
    }
}
