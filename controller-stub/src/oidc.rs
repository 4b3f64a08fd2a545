//! Sign-in through an identity provider (OpenID Connect Core): the authorization code flow with PKCE. `provider`
//! speaks to the provider, `id_token` (pure) says whether a token is to be believed, and `claims` (pure) who its
//! bearer is here. Of a sign-in that has begun, a cookie of the browser's holds all there is: nothing is kept
//! here, so it may end at another controller. Who gets a session, the pages decide.

mod claims;
mod id_token;
mod provider;

use std::{fs, io, path::PathBuf, time::Duration};

use aio_protocol::{error_code::ErrorCode, time::Timestamp};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Url;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    config::{self, exposure::is_exposed},
    noti::signature::same,
    random::{self, NoRandomness},
    tokens::{Tokens, Unsigned},
};
pub(crate) use claims::Identity;
use id_token::{Expected, InvalidIdToken};
use provider::{Provider, Trouble};

/// How long somebody may take to sign in at the provider.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// All that is asked of the provider to end a sign-in takes no longer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Maximum number of sign-ins that wait for the provider at once.
const MAX_WAITING: usize = 32;

/// Longer addresses of pages are not returned to.
const MAX_NEXT_BYTES: usize = 1024;

/// The `type` by which nobody takes a sign-in for a token.
const KIND: &str = "sign-in";

/// The identity provider, and what its claims mean here.
pub(crate) struct Oidc {
    config: config::Oidc,
    provider: Provider,
    redirect_uri: String,
    waiting: Semaphore,
}

/// A sign-in that has begun.
pub(crate) struct Begun {
    /// Tells it among others of the same browser.
    pub state: String,
    /// What the browser keeps of it.
    pub kept: SecretString,
    /// Where the provider asks who it is.
    pub ask: Url,
}

/// What the browser has kept of a sign-in.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(rename = "type")]
    kind: String,
    /// Seconds since the Unix epoch.
    exp: i64,
    secret: String,
    next: String,
}

/// A sign-in that has come back to the browser that began it.
pub(crate) struct Returned {
    secret: String,
    /// The page to show then.
    pub next: String,
    pub expires_at: Timestamp,
}

/// Why a provider cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("cannot read OIDC_CLIENT_SECRET_FILE {path}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("every user of this machine can read OIDC_CLIENT_SECRET_FILE {0}")]
    Exposed(PathBuf),
    #[error("OIDC_CLIENT_SECRET_FILE {0} is empty")]
    Empty(PathBuf),
    #[error("OIDC_ISSUER is set, and no session can begin")]
    VerifyOnly(#[source] Unsigned),
    #[error("cannot make an HTTP client for the identity provider")]
    Client(#[source] reqwest::Error),
}

impl Unusable {
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Unreadable { .. } => ErrorCode::FileFailed,
            Self::Exposed(_) => ErrorCode::SecretExposed,
            Self::Empty(_) => ErrorCode::ConfigInvalid,
            Self::VerifyOnly(error) => error.code(),
            Self::Client(_) => ErrorCode::ControllerError,
        }
    }
}

/// Why somebody is not signed in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotSignedIn {
    #[error("this sign-in did not begin in this browser, is too old, or has ended already")]
    State,
    #[error("the identity provider cannot be used: {0}")]
    Unavailable(#[from] Trouble),
    #[error("the identity provider does not sign you in: {0}")]
    Refused(String),
    #[error("the identity provider's answer is not believed: {0}")]
    Token(#[from] InvalidIdToken),
    #[error("the identity provider knows you, and you may not come in here: {0}")]
    NoRole(#[from] claims::NotAdmitted),
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl NotSignedIn {
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::State => ErrorCode::OidcStateInvalid,
            Self::Unavailable(_) => ErrorCode::OidcUnavailable,
            Self::Refused(_) => ErrorCode::OidcRefused,
            Self::Token(_) => ErrorCode::OidcTokenInvalid,
            Self::NoRole(_) => ErrorCode::OidcNoRole,
            Self::Unsigned(error) => error.code(),
            Self::NoRandomness(_) => ErrorCode::ControllerError,
        }
    }
}

/// Says whether a provider can be used as it is configured. Asks it nothing.
pub(crate) fn check(config: &config::Oidc, tokens: &Tokens) -> Result<(), Unusable> {
    tokens.require_signing().map_err(Unusable::VerifyOnly)?;
    secret(config).map(drop)
}

/// The secret that the provider knows this controller by.
fn secret(config: &config::Oidc) -> Result<Option<SecretString>, Unusable> {
    let (None, Some(path)) = (&config.client_secret, &config.client_secret_file) else {
        return Ok(config.client_secret.clone());
    };
    let text =
        fs::read_to_string(path).map_err(|source| Unusable::Unreadable { path: path.clone(), source })?;
    if is_exposed(path) {
        return Err(Unusable::Exposed(path.clone()));
    }
    match text.trim() {
        "" => Err(Unusable::Empty(path.clone())),
        text => Ok(Some(SecretString::from(text))),
    }
}

impl Oidc {
    /// The provider of `config`, which leads back to `redirect_uri`.
    pub(crate) fn new(config: config::Oidc, tokens: &Tokens, redirect_uri: String) -> Result<Self, Unusable> {
        check(&config, tokens)?;
        let secret = secret(&config)?;
        let provider = Provider::new(&config, secret).map_err(Unusable::Client)?;
        Ok(Self { config, provider, redirect_uri, waiting: Semaphore::new(MAX_WAITING) })
    }

    /// What people call the provider.
    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    /// How long a session lasts.
    pub(crate) fn session(&self) -> Duration {
        self.config.session
    }

    /// Begins a sign-in that leads to `next`.
    pub(crate) async fn begin(
        &self,
        tokens: &Tokens,
        next: &str,
        now: Timestamp,
    ) -> Result<Begun, NotSignedIn> {
        let endpoint = self.waiting(self.provider.authorization_endpoint()).await?;
        let secret = random::word()?;
        let next = if next.len() > MAX_NEXT_BYTES { "" } else { next };
        let kept = Kept {
            kind: KIND.to_owned(),
            exp: now.plus(PATIENCE).as_millis() / 1000,
            secret: secret.clone(),
            next: next.to_owned(),
        };
        let state = derived("state", &secret);
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(derived("verifier", &secret)));
        let mut ask = endpoint;
        ask.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.config.client_id)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("scope", &self.config.scopes)
            .append_pair("state", &state)
            .append_pair("nonce", &derived("nonce", &secret))
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        Ok(Begun { state, kept: tokens.sign(&kept)?.into(), ask })
    }

    /// The sign-in that comes back with `state`, if this browser has begun it and it is not too old.
    pub(crate) fn returned(tokens: &Tokens, kept: &str, state: &str, now: Timestamp) -> Option<Returned> {
        let claims = tokens.genuine(kept).ok()?;
        let Kept { kind, exp, secret, next } = serde_json::from_value(claims.into()).ok()?;
        let expires_at = Timestamp::from_millis(exp.saturating_mul(1000));
        let good = kind == KIND && expires_at > now && same(&derived("state", &secret), state);
        good.then_some(Returned { secret, next, expires_at })
    }

    /// Who it is, by the code that the provider has given for them; `issuer` is who gave it, where it says so.
    pub(crate) async fn finish(
        &self,
        returned: &Returned,
        code: &str,
        issuer: Option<&str>,
    ) -> Result<Identity, NotSignedIn> {
        self.waiting(async {
            // Whose code it is must be known before it is shown to anybody (RFC 9207).
            self.provider.refuse_other_issuer(issuer).await?;
            let verifier = derived("verifier", &returned.secret);
            let token = self.provider.token_for(code, &verifier, &self.redirect_uri).await?;
            let expected = Expected {
                issuer: &self.config.issuer,
                client_id: &self.config.client_id,
                nonce: &derived("nonce", &returned.secret),
            };
            let claims = match id_token::verify(&token, &self.provider.keys().await?, expected) {
                // The provider may have begun to sign with another key, under the same name or none.
                Err(InvalidIdToken::UnknownKey | InvalidIdToken::Signature) => {
                    id_token::verify(&token, &self.provider.other_keys().await?, expected)?
                }
                verified => verified?,
            };
            Ok(claims::identity(&claims, &self.config)?)
        })
        .await
    }

    /// Asks the provider something, among others and within the deadline.
    async fn waiting<T>(
        &self,
        asked: impl Future<Output = Result<T, NotSignedIn>>,
    ) -> Result<T, NotSignedIn> {
        let turn = async {
            let _permit = self.waiting.acquire().await.map_err(|_| Trouble::Slow)?;
            asked.await
        };
        timeout(DEADLINE, turn).await.unwrap_or(Err(Trouble::Slow.into()))
    }
}

/// A word of a sign-in's that follows from its secret, which alone is kept.
fn derived(what: &str, secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{what} of sign-in {secret}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(kind: &str, lasts: i64) -> String {
        let exp = crate::clock::now().as_millis() / 1000 + lasts;
        let kept = Kept { kind: kind.to_owned(), exp, secret: "s".to_owned(), next: "ui/nodes".to_owned() };
        Tokens::of_secret_for_tests().sign(&kept).unwrap()
    }

    #[test]
    fn a_sign_in_comes_back_to_its_browser_in_time_and_is_no_token() {
        let (tokens, now) = (Tokens::of_secret_for_tests(), crate::clock::now());
        let state = derived("state", "s");
        let returned = Oidc::returned(&tokens, &kept(KIND, 60), &state, now).unwrap();
        assert_eq!(returned.next, "ui/nodes");
        assert!(tokens.verify(&kept(KIND, 60)).is_err());
        for (kept, state) in [
            (kept(KIND, -1), state.as_str()),
            (kept("user", 60), &state),
            (kept(KIND, 60), &derived("state", "t")),
            (kept(KIND, 60), ""),
            (String::new(), &state),
        ] {
            assert!(Oidc::returned(&tokens, &kept, state, now).is_none(), "{state}");
        }
    }

    #[test]
    fn the_words_of_a_sign_in_tell_nothing_of_each_other() {
        let words = ["state", "nonce", "verifier"].map(|what| derived(what, "s"));
        // A verifier has 43 to 128 characters (RFC 7636).
        assert!(words.iter().all(|word| word.len() == 43), "{words:?}");
        assert!(words[0] != words[1] && words[1] != words[2] && words[0] != words[2]);
    }
}
