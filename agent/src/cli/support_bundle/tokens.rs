//! The node tokens of this machine: their texts for the redactor alone, what they claim for the
//! bundle. Judges none of them.

use std::path::Path;

use aio_host::{
    layout::{CANDIDATE_TOKEN, KEPT_TOKEN, Layout},
    token::NodeToken,
};
use aio_protocol::{aiwm::credentials::Credentials, time::Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{
    files::{Follow, read},
    redaction::Redactor,
};

/// A token, or why there is none to be read where one is.
#[derive(Debug)]
pub(super) struct Token {
    place: String,
    text: Result<SecretString, String>,
}

/// All that there are: the installed one, those that the controller gave in its place, and that of
/// the environment.
pub(super) fn find(layout: &Layout, variable: Option<String>) -> Vec<Token> {
    let state = layout.state_dir();
    // The state folder is the daemon's user's: root follows no link there.
    let files = [
        (layout.token(), Follow::Links),
        (state.join(KEPT_TOKEN), Follow::Nothing),
        (state.join(CANDIDATE_TOKEN), Follow::Nothing),
    ];
    let mut found: Vec<_> = files.iter().filter_map(|(path, follow)| in_file(path, *follow)).collect();
    let variable = variable.filter(|text| !text.trim().is_empty());
    found.extend(variable.map(|text| Token { place: "AIO_NODE_TOKEN".into(), text: Ok(text.into()) }));
    found
}

fn in_file(path: &Path, follow: Follow) -> Option<Token> {
    let text = match read(path, follow) {
        Ok(text) => Ok(text.into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => Err(error.to_string()),
    };
    Some(Token { place: path.display().to_string(), text })
}

impl Token {
    /// Tells the redactor.
    pub(super) fn confide(&self, redactor: &mut Redactor) {
        if let Ok(text) = &self.text {
            redactor.know(text.expose_secret());
            if let Ok(credentials) = Credentials::read(text.expose_secret()) {
                redactor.know(&credentials.secret.0);
            }
        }
    }

    /// What it says, never its text or signature.
    pub(super) fn claims(&self, now: Timestamp) -> Value {
        let place = &self.place;
        let text = match &self.text {
            Ok(text) => text.expose_secret(),
            Err(reason) => return json!({ "place": place, "unreadable": reason }),
        };
        let token = NodeToken::parse(&text.lines().next().unwrap_or_default().into());
        match token.as_ref().map(NodeToken::claims) {
            Ok(claims) => json!({
                "place": place,
                "node": claims.sub,
                "id": claims.jti,
                "issuedAt": claims.issued_at(),
                "expiresAt": claims.expires_at(),
                "expired": claims.expired(now),
                "webSocket": claims.ctl,
                "api": claims.api,
                "releaseKey": claims.rel,
                "authority": claims.ca,
            }),
            Err(error) => json!({ "place": place, "unreadable": error.to_string() }),
        }
    }
}
