//! Where an installation finds its node token, and which token it shows to the controller.

use std::{io::Read, path::Path};

use aio_host::{
    layout::{KEPT_TOKEN, Layout},
    token::{self, NodeToken, TokenError},
};
use aio_protocol::{claims::NodeClaims, error_code::ErrorCode, time::Timestamp};
use secrecy::{ExposeSecret, SecretString};

use crate::failure::Failure;

/// The variable that carries a token for those who keep it out of argv.
pub(crate) const VARIABLE: &str = "AIO_NODE_TOKEN";

/// Reads a token's claims and refuses one that has ended at `now`.
pub fn parse(text: &SecretString, now: Timestamp) -> Result<NodeToken, Failure> {
    let token = NodeToken::parse(text).map_err(TokenError::from)?;
    let claims = token.claims();
    if claims.expired(now) {
        let message =
            format!("the token of node {} ended at {}; it is {now} here", claims.sub, claims.expires_at());
        return Err(Failure::new(ErrorCode::TokenExpired, message));
    }
    Ok(token)
}

/// What to show to the controller: where this very token is installed and the daemon holds a newer one
/// of the same node, that one, because the controller has revoked the one that it replaced.
pub(crate) fn bearer(token: &NodeToken, layout: &Layout) -> SecretString {
    if installed(layout).is_none_or(|text| !token.is(&text)) {
        return token.secret().clone();
    }
    let kept = token::read_plain_file(&layout.state_dir().join(KEPT_TOKEN));
    let line = kept.as_ref().and_then(|text| text.expose_secret().lines().next()).unwrap_or_default();
    match NodeClaims::read_unverified(line) {
        Ok(claims) if claims.sub == token.claims().sub && claims.iat >= token.claims().iat => line.into(),
        _ => token.secret().clone(),
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
        (Some(path), _) if path == Path::new("-") => Ok(token::read(input, path)?),
        (Some(path), _) => Ok(token::read_file(path)?),
        (None, Some(text)) => Ok(text.into()),
        (None, None) => Err(TokenError::Missing.into()),
    }
}

/// The token that is installed here, where this user may read it.
pub(crate) fn installed(layout: &Layout) -> Option<SecretString> {
    token::read_plain_file(&layout.token())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Result<NodeToken, Failure> {
        parse(&text.into(), Timestamp::from_millis(0))
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
