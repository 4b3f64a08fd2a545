//! What a node shows to its controller, as text: a node token of our own controller, or the credentials of
//! a node of AIWM, which lie in the same place. What it says is read without a look at the signature, and
//! within limits. The text lives in a `SecretString`, which nothing prints. Whether a token that has ended
//! may be used is decided elsewhere, and whether the signature holds by the controller.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use aio_protocol::{
    aiwm::credentials::Credentials,
    claims::{NodeClaims, NodeTokenKind, UnreadableToken, pasted},
    error_code::ErrorCode,
    failure::Failure,
};
use rustix::fs::OFlags;
use secrecy::{ExposeSecret, SecretString};

/// Longer than any token that a controller makes; what is longer is a file given by mistake.
const MAX_BYTES: u64 = 16 * 1024;

/// A node token with its claims, or the credentials of a node of AIWM with what they say in a token's
/// words.
#[derive(Debug, Clone)]
pub struct NodeToken {
    secret: SecretString,
    claims: NodeClaims,
    aiwm: Option<Box<Credentials>>,
}

/// When credentials end that do not: the last second that can be written.
const NEVER: i64 = 253_402_207_200;

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
    /// It is too long for a token, or no text.
    #[error("{0} holds no node token")]
    Content(PathBuf),
    /// It is no token.
    #[error(transparent)]
    Invalid(#[from] UnreadableToken),
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        let code = match &error {
            TokenError::Missing | TokenError::Invalid(UnreadableToken::Empty) => ErrorCode::TokenMissing,
            TokenError::Unreadable { source, .. } if source.kind() == ErrorKind::NotFound => {
                ErrorCode::TokenMissing
            }
            TokenError::Unreadable { .. } => ErrorCode::FileFailed,
            TokenError::Content(_) | TokenError::Invalid(_) => ErrorCode::TokenInvalid,
        };
        Self::caused(code, &error)
    }
}

impl NodeToken {
    /// The token in `text`; what people paste around one is no part of it.
    pub fn parse(text: &SecretString) -> Result<Self, UnreadableToken> {
        if Credentials::are_in(text.expose_secret()) {
            return Credentials::read(text.expose_secret())
                .map(Self::of_aiwm)
                .map_err(|error| UnreadableToken::Claims(format!("these credentials of AIWM: {error}")));
        }
        let secret = SecretString::from(pasted::unwrapped(text.expose_secret()));
        let claims = NodeClaims::read_unverified(secret.expose_secret())?;
        Ok(Self { secret, claims, aiwm: None })
    }

    /// The credentials of a node of AIWM. They name no key and no authority, and do not end.
    pub fn of_aiwm(credentials: Credentials) -> Self {
        let claims = NodeClaims {
            sub: credentials.node_id.clone(),
            kind: NodeTokenKind::Node,
            jti: String::new(),
            iat: credentials.iat,
            exp: NEVER,
            ctl: credentials.socket.clone(),
            api: credentials.api.clone(),
            rel: None,
            ca: None,
        };
        Self { secret: credentials.write().into(), claims, aiwm: Some(Box::new(credentials)) }
    }

    /// The credentials, where the controller is an AIWM.
    pub fn aiwm(&self) -> Option<&Credentials> {
        self.aiwm.as_deref()
    }

    /// What it says.
    pub fn claims(&self) -> &NodeClaims {
        &self.claims
    }

    /// The text, for the controller and the token's file alone.
    pub fn secret(&self) -> &SecretString {
        &self.secret
    }

    /// Whether it is this very text.
    pub fn is(&self, secret: &SecretString) -> bool {
        self.secret.expose_secret() == secret.expose_secret()
    }
}

/// What `input` has, which was named `path`.
pub fn read(input: impl Read, path: &Path) -> Result<SecretString, TokenError> {
    let mut text = String::new();
    match input.take(MAX_BYTES + 1).read_to_string(&mut text) {
        Ok(_) if text.len() as u64 <= MAX_BYTES => Ok(text.into()),
        Err(source) if source.kind() != ErrorKind::InvalidData => {
            Err(TokenError::Unreadable { path: path.to_owned(), source })
        }
        // Too long, or no text: neither is a token, and neither is repeated.
        _ => Err(TokenError::Content(path.to_owned())),
    }
}

/// What the file has.
pub fn read_file(path: &Path) -> Result<SecretString, TokenError> {
    let file = File::open(path).map_err(|source| TokenError::Unreadable { path: path.to_owned(), source })?;
    read(file, path)
}

/// What is in a file, if it is one: where another user may write, root follows no link and waits for nobody.
pub fn read_plain_file(path: &Path) -> Option<SecretString> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).ok()?;
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    is_file.then(|| read(file, path).ok())?
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
            let error = TokenError::from(NodeToken::parse(&text.into()).unwrap_err());
            assert!(!format!("{error:?}").contains("abc"), "{error:?}");
            assert_eq!(Failure::from(error).code, code, "{text:?}");
        }
    }

    #[test]
    fn the_credentials_of_aiwm_lie_where_a_token_would_and_say_the_same_things() {
        let text = r#"{"type":"aiwm-node","nodeId":"69396100cd71623c7bbfbfee","secret":"7d1b0f52","api":"https://a.example",
            "socket":"wss://a.example/socket.io/?EIO=4&transport=websocket","iat":7}"#;
        let token = NodeToken::parse(&text.into()).unwrap();
        let claims = token.claims();
        assert_eq!((claims.sub.as_str(), claims.iat), ("69396100cd71623c7bbfbfee", 7));
        assert_eq!(
            (claims.api.as_str(), claims.ctl.starts_with("wss://a.example/")),
            ("https://a.example", true)
        );
        assert!(token.aiwm().is_some() && !format!("{token:?}").contains("7d1b0f52"), "{token:?}");
        let again = NodeToken::parse(token.secret()).unwrap();
        assert!(again.is(token.secret()));
        let broken = NodeToken::parse(&text.replace("nodeId", "node").as_str().into()).unwrap_err();
        assert_eq!(Failure::from(TokenError::from(broken)).code, ErrorCode::TokenInvalid);
    }

    #[test]
    fn a_file_that_is_not_there_and_one_that_is_no_text_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let code = |path| Failure::from(read_file(path).unwrap_err()).code;
        assert_eq!(code(&path), ErrorCode::TokenMissing);
        std::fs::write(&path, [0xff; 100_000]).unwrap();
        assert_eq!(code(&path), ErrorCode::TokenInvalid);
        std::fs::write(&path, [b'x'; 100_000]).unwrap();
        assert_eq!(code(&path), ErrorCode::TokenInvalid);
        assert_eq!(code(folder.path()), ErrorCode::FileFailed);
    }

    #[test]
    fn a_plain_file_is_no_link_and_no_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, "a.b.c").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(read_plain_file(&file).is_some());
        assert!(read_plain_file(&link).is_none() && read_plain_file(folder.path()).is_none());
    }
}
