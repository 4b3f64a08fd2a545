//! Which token a connection is made with, and what becomes of those that the controller offers: the
//! rotation's effects become files, connections and answers. Which token is tried when is the
//! rotation's to decide.

use std::time::Instant;

use aio_host::token::TokenError;
use aio_installer::Failure;
use secrecy::ExposeSecret;
use tracing::{info, warn};

use super::{Done, Driver, Input, Link, Origin, Patience, Rotation, Setback, State, now, rotation};
use crate::tokens::rotation::Held;

impl Driver {
    /// Reads the tokens as they are now, and then dials with one of them.
    pub(super) fn dial(&mut self) {
        self.connection = self.connection.saturating_add(1);
        let (connection, config) = (self.connection, self.config.clone());
        self.files.push(move || Done::TokensRead { connection, tokens: config.tokens() });
    }

    /// Looks whether another token is there.
    pub(super) fn check_tokens(&mut self) {
        let config = self.config.clone();
        self.files.push(move || Done::TokensChecked(config.tokens()));
    }

    /// What comes of work on the tokens' files.
    pub(super) fn token_done(&mut self, done: Done) -> Option<Input> {
        match done {
            Done::TokensRead { connection, tokens } => {
                let awaited =
                    connection == self.connection && matches!(self.session.state(), State::Connecting { .. });
                if awaited { self.dial_with(tokens) } else { None }
            }
            Done::TokensChecked(Ok(held)) if self.rotation.is_news(held.clone()) => {
                info!("another token is there; trying it at once");
                Some(Input::TokenReplaced)
            }
            Done::OfferDue(message_id, offer) => {
                self.rotate(|rotation, at| rotation.offered(message_id, offer, now(), at))
            }
            Done::Stored { offer, outcome } => self.rotate(|rotation, _| rotation.stored(offer, outcome)),
            Done::Kept(origin, Ok(())) => {
                if origin == Origin::Candidate {
                    info!("the new token is the one from now on");
                }
                self.rotate(|rotation, _| rotation.kept())
            }
            // It is tried first after a restart, too, and is then welcome again.
            Done::Kept(_, Err(error)) => {
                warn!(%error, reason = %error.source, "the tokens of this node could not be put in order");
                None
            }
            Done::Discarded(Err(error)) => {
                warn!(%error, reason = %error.source, "the refused token could not be removed");
                None
            }
            Done::TokensChecked(_)
            | Done::Discarded(Ok(()))
            | Done::UndeliveredRead { .. }
            | Done::AuthoritiesRead(_) => None,
        }
    }

    /// Dials with the newest usable token; without one, that is the setback.
    fn dial_with(&mut self, tokens: Result<Vec<Held>, Failure>) -> Option<Input> {
        let (held, missing) = match tokens {
            Ok(held) => (held, Failure::from(TokenError::Missing)),
            Err(unusable) => (vec![], unusable),
        };
        self.rotation = std::mem::take(&mut self.rotation).dialling(held);
        let in_use = self.rotation.in_use().ok_or(missing);
        let credentials = in_use.and_then(|held| self.config.credentials(held.token.clone()));
        match credentials {
            Ok(credentials) => {
                let expires_at = credentials.claims.expires_at();
                self.reporter.dialling(&credentials.endpoint, expires_at);
                let known = self.tried.replace(credentials.secret.clone());
                if known.is_none_or(|known| known.expose_secret() != credentials.secret.expose_secret())
                    && credentials.claims.expired(now())
                {
                    warn!(%expires_at, "by this machine's clock the token has ended; the controller will say");
                }
                self.link = Some(Link::dial(credentials, self.trusted.clone(), self.account.clone()));
                None
            }
            Err(unusable) => {
                self.tried = None;
                Some(Input::SocketLost(Setback::failed(unusable, Patience::Long)))
            }
        }
    }

    /// Hears what the end of a connection says of the token. Where another is there, it is tried soon.
    pub(super) fn judged(&mut self, setback: Setback) -> Setback {
        self.rotate(|rotation, _| rotation.lost(&setback));
        if setback.refuses_the_token() && self.rotation.has_another() {
            return Setback { patience: Patience::Backoff, ..setback };
        }
        setback
    }

    /// Gives the rotation one input and does what it says; what comes of that for the session is returned.
    pub(super) fn rotate(
        &mut self,
        step: impl FnOnce(Rotation, Instant) -> (Rotation, Vec<rotation::Effect>),
    ) -> Option<Input> {
        let at = tokio::time::Instant::now().into_std();
        let (rotation, effects) = step(std::mem::take(&mut self.rotation), at);
        self.rotation = rotation;
        effects.into_iter().fold(None, |input, effect| self.perform_rotation(effect).or(input))
    }

    fn perform_rotation(&mut self, effect: rotation::Effect) -> Option<Input> {
        let rotated = self.config.rotated();
        match effect {
            rotation::Effect::Store { offer, token } => self.files.push(move || {
                let outcome = rotated.store(offer, &token).map_err(|error| Failure::from(error).into());
                Done::Stored { offer, outcome }
            }),
            rotation::Effect::Redial => {
                info!("the controller offered a new token; connecting with it");
                self.link = None;
                return Some(Input::TokenReplaced);
            }
            rotation::Effect::Keep(origin) => {
                self.files.push(move || Done::Kept(origin, rotated.keep(origin)));
            }
            rotation::Effect::Discard => {
                warn!("the controller refused the token that it had offered; going back to the one before");
                self.files.push(move || Done::Discarded(rotated.discard()));
            }
            rotation::Effect::GiveBack { offer, error } => {
                warn!(code = error.code, reason = error.message, "an offered token is given back");
                self.reject(offer, error);
            }
        }
        None
    }
}
