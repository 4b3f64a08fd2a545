//! Where the node token comes from, and what it claims. The text lives in a `SecretString`: it is
//! shown to nobody but the controller and the token file. Whether the signature holds is the
//! controller's to say.

use std::{fs::File, io::Read, os::unix::fs::OpenOptionsExt, path::Path};

use aio_host::layout::{KEPT_TOKEN, Layout};
use aio_protocol::{
    claims::{NodeClaims, UnreadableToken, pasted},
    error_code::ErrorCode,
    time::Timestamp,
};
use rustix::fs::OFlags;
use secrecy::{ExposeSecret, SecretString};

use crate::failure::Failure;

/// The variable that carries a token for those who keep it out of argv.
pub(crate) const VARIABLE: &str = "AIO_NODE_TOKEN";

/// Longer than any token that a controller makes; what is longer is a file given by mistake.
const MAX_BYTES: u64 = 16 * 1024;

/// A node token with its claims.
#[derive(Debug, Clone)]
pub struct NodeToken {
    text: SecretString,
    claims: NodeClaims,
}

impl NodeToken {
    /// Reads a token's claims and refuses one that has ended at `now`.
    pub fn parse(text: &SecretString, now: Timestamp) -> Result<Self, Failure> {
        let text = SecretString::from(pasted::unwrapped(text.expose_secret()));
        let claims = NodeClaims::read_unverified(text.expose_secret()).map_err(|error| {
            let code = match error {
                UnreadableToken::Empty => ErrorCode::TokenMissing,
                _ => ErrorCode::TokenInvalid,
            };
            Failure::new(code, error.to_string())
        })?;
        if claims.expired(now) {
            let message = format!(
                "the token of node {} ended at {}; it is {now} here",
                claims.sub,
                claims.expires_at()
            );
            return Err(Failure::new(ErrorCode::TokenExpired, message));
        }
        Ok(Self { text, claims })
    }

    /// What the token says.
    pub fn claims(&self) -> &NodeClaims {
        &self.claims
    }

    /// What to show to the controller: where this very token is installed and the daemon holds a
    /// newer one of the same node, that one, because the controller has revoked the one that it
    /// replaced.
    pub(crate) fn bearer(&self, layout: &Layout) -> SecretString {
        let installed = read_plain_file(&layout.token());
        if installed.is_none_or(|text| text.expose_secret() != self.text.expose_secret()) {
            return self.text.clone();
        }
        let kept = read_plain_file(&layout.state_dir().join(KEPT_TOKEN));
        let line = kept.as_ref().and_then(|text| text.expose_secret().lines().next()).unwrap_or_default();
        match NodeClaims::read_unverified(line) {
            Ok(claims) if claims.sub == self.claims.sub && claims.iat >= self.claims.iat => line.into(),
            _ => self.text.clone(),
        }
    }

    /// The text, for the controller and the token file alone.
    pub(crate) fn secret(&self) -> &SecretString {
        &self.text
    }
}

/// Where a token was given, the first that is set: argument, file (`-` is standard input),
/// environment.
pub(crate) fn obtain(
    argument: Option<&SecretString>,
    file: Option<&Path>,
    variable: Option<String>,
    input: impl Read,
) -> Result<SecretString, Failure> {
    if let Some(token) = argument {
        return Ok(token.clone());
    }
    match (file, variable) {
        (Some(path), _) if path == Path::new("-") => read_limited(input, path),
        (Some(path), _) => {
            let file = File::open(path).map_err(|error| Failure::io("read", path, &error))?;
            read_limited(file, path)
        }
        (None, Some(text)) => Ok(text.into()),
        (None, None) => Err(Failure::new(ErrorCode::TokenMissing, "no node token was given")),
    }
}

/// The token that is installed here, where this user may read it.
pub(crate) fn installed(layout: &Layout) -> Option<SecretString> {
    read_plain_file(&layout.token())
}

/// What is in a file, if it is one: where the daemon's user may write, root follows no link and
/// waits for nobody.
fn read_plain_file(path: &Path) -> Option<SecretString> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).ok()?;
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    is_file.then(|| read_limited(file, path).ok())?
}

fn read_limited(input: impl Read, path: &Path) -> Result<SecretString, Failure> {
    let mut text = String::new();
    match input.take(MAX_BYTES + 1).read_to_string(&mut text) {
        Ok(_) if text.len() as u64 <= MAX_BYTES => Ok(text.into()),
        Err(error) if error.kind() != std::io::ErrorKind::InvalidData => {
            Err(Failure::io("read", path, &error))
        }
        // Too long, or no text: neither is a token, and neither is repeated.
        _ => Err(Failure::new(ErrorCode::TokenInvalid, format!("{} holds no node token", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Result<NodeToken, Failure> {
        NodeToken::parse(&text.into(), Timestamp::from_millis(0))
    }

    #[test]
    fn an_argument_wins_over_a_file_and_a_file_over_the_environment() {
        let argument = SecretString::from("argument");
        let dash = Some(Path::new("-"));
        let read = |argument, file| obtain(argument, file, Some("variable".into()), &b"input"[..]).unwrap();
        assert_eq!(read(Some(&argument), dash).expose_secret(), "argument");
        assert_eq!(read(None, dash).expose_secret(), "input");
        assert_eq!(read(None, None).expose_secret(), "variable");
        let nothing = obtain(None, None, None, &b""[..]).unwrap_err();
        assert_eq!(nothing.code, ErrorCode::TokenMissing);
    }

    #[test]
    fn what_is_no_token_is_told_apart() {
        assert_eq!(given(" \n").unwrap_err().code, ErrorCode::TokenMissing);
        assert_eq!(given("abc").unwrap_err().code, ErrorCode::TokenInvalid);
        let endless = obtain(None, Some(Path::new("-")), None, std::io::repeat(b'x')).unwrap_err();
        assert_eq!(endless.code, ErrorCode::TokenInvalid);
        let binary = obtain(None, Some(Path::new("-")), None, &[0xff, 0xfe][..]).unwrap_err();
        assert_eq!(binary.code, ErrorCode::TokenInvalid);
    }
}
