//! Which token the worker speaks with, when the controller offers it new ones. Pure: the driver
//! reads and writes the files.
//!
//! A token that is offered is stored as candidate before it is tried, and the one before stays
//! until the controller has welcomed the worker with the new one. What outlives a crash are the
//! files alone, and what they say is enough: the newest token is tried first, a refused one gives
//! way to the next, and whichever is welcomed stays. A connection that fails says nothing about a
//! token.

use std::time::{Duration, Instant};

use aio_host::token::NodeToken;
use aio_protocol::{
    claims::NodeClaims, error_code::ErrorCode, event::ErrorReport, time::Timestamp, wire::TokenOffer,
};
use secrecy::SecretString;
use uuid::Uuid;

use crate::session::setback::{Cause, Setback};

/// Where a token lies. Of equally new ones, the last of these is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Where the operator put it.
    Installed,
    /// With the daemon's state: offered by the controller, and welcomed.
    Kept,
    /// With the daemon's state: offered, and not yet welcomed.
    Candidate,
}

/// A token that the worker holds.
#[derive(Debug, Clone)]
pub struct Held {
    /// Where it lies.
    pub origin: Origin,
    /// The offer that it came with.
    pub offer: Option<Uuid>,
    /// The token.
    pub token: NodeToken,
}

impl Held {
    fn is(&self, secret: &SecretString) -> bool {
        self.token.is(secret)
    }
}

/// What was given to another node, which this machine has been, counts no more: the installed token
/// says who it is.
fn of_the_installed_node(mut held: Vec<Held>) -> Vec<Held> {
    let installed = held.iter().find(|held| held.origin == Origin::Installed);
    if let Some(node) = installed.map(|held| held.token.claims().sub.clone()) {
        held.retain(|held| held.token.claims().sub == node);
    }
    held
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Store this as candidate, durably, and say so with [`Rotation::stored`].
    Store {
        /// The offer's message.
        offer: Uuid,
        /// The token.
        token: SecretString,
    },
    /// Connect anew, with what is stored now.
    Redial,
    /// The token of this origin is the one from now on: forget the older ones, durably, and say so
    /// with [`Rotation::kept`].
    Keep(Origin),
    /// Remove the candidate.
    Discard,
    /// Give an offer back.
    GiveBack {
        /// The offer's message.
        offer: Uuid,
        /// Why.
        error: ErrorReport,
    },
}

/// The machine: what it knows of its tokens beside the files.
#[derive(Debug, Clone, Default)]
pub struct Rotation {
    /// Whether the configuration names the controller's endpoint, so that the token need not.
    endpoint_is_given: bool,
    held: Vec<Held>,
    /// The token of the connection, or of the attempt to make one.
    in_use: Option<Held>,
    /// Tokens that were refused, as long as another was not.
    refused: Vec<SecretString>,
    /// The rejection of an offer, sent as soon as there is a session.
    pending_rejection: Option<(Uuid, ErrorReport)>,
    /// When a new token was last welcomed.
    exchanged: Option<Instant>,
}

impl Rotation {
    /// A machine that has used no token yet.
    pub fn new(endpoint_is_given: bool) -> Self {
        Self { endpoint_is_given, ..Self::default() }
    }

    /// The same machine under another configuration.
    pub fn with_endpoint(self, is_given: bool) -> Self {
        Self { endpoint_is_given: is_given, ..self }
    }

    /// Whether one of these was not there when a connection was last made.
    pub fn is_news(&self, held: Vec<Held>) -> bool {
        let held = of_the_installed_node(held);
        held.iter().any(|held| !self.held.iter().any(|known| known.is(held.token.secret())))
    }

    /// A connection is made with one of these: the newest that was not refused. Where all were, it
    /// begins with the newest again.
    pub fn dialling(mut self, held: Vec<Held>) -> Self {
        self.held = of_the_installed_node(held);
        if !self.has_another() {
            self.refused.clear();
        }
        let newest = |held: &&Held| (held.token.claims().iat, held.token.claims().exp, held.origin);
        self.in_use = self.held.iter().filter(|held| !self.was_refused(held)).max_by_key(newest).cloned();
        self
    }

    /// The token of the connection, or of the attempt to make one.
    pub fn in_use(&self) -> Option<&Held> {
        self.in_use.as_ref()
    }

    /// The controller offers a token.
    pub fn offered(
        self,
        message_id: Uuid,
        offer: TokenOffer,
        wall: Timestamp,
        now: Instant,
    ) -> (Self, Vec<Effect>) {
        let mut effects = Vec::new();
        if self.is_unkept() {
            // Another candidate would take the place of the only token that works.
            effects.push(Effect::Keep(Origin::Candidate));
        }
        effects.push(match self.weigh(&offer, wall, now) {
            Ok(()) => Effect::Store { offer: message_id, token: offer.token.trim().into() },
            Err(error) => Effect::GiveBack { offer: message_id, error },
        });
        (self, effects)
    }

    /// The candidate is stored, or could not be.
    pub fn stored(self, offer: Uuid, outcome: Result<(), ErrorReport>) -> (Self, Vec<Effect>) {
        let effect = match outcome {
            Ok(()) => Effect::Redial,
            Err(error) => Effect::GiveBack { offer, error },
        };
        (self, vec![effect])
    }

    /// The controller has welcomed the worker.
    pub fn welcomed(mut self, now: Instant) -> (Self, Vec<Effect>) {
        let mut effects = Vec::new();
        if let Some(held) = &mut self.in_use {
            effects.push(Effect::Keep(held.origin));
            if held.origin == Origin::Candidate {
                held.offer = None;
                self.exchanged = Some(now);
            }
        }
        effects.extend(self.pending_rejection.take().map(|(offer, error)| Effect::GiveBack { offer, error }));
        (self, effects)
    }

    /// The files are in order: the candidate, if that is in use, is the kept token.
    pub fn kept(mut self) -> (Self, Vec<Effect>) {
        if let Some(held) = self.in_use.as_mut().filter(|held| held.origin == Origin::Candidate) {
            held.origin = Origin::Kept;
        }
        (self, Vec::new())
    }

    /// Whether the token in use is a candidate that was welcomed and could not be put in order.
    fn is_unkept(&self) -> bool {
        self.in_use.as_ref().is_some_and(|held| held.origin == Origin::Candidate)
    }

    /// There is no session, or none any more. Only a refusal of the token itself is a verdict on
    /// it; [`Self::has_another`] says whether another is worth a try.
    pub fn lost(mut self, setback: &Setback) -> (Self, Vec<Effect>) {
        let Cause::Failed(failure) = &setback.cause else { return (self, vec![]) };
        let Some(held) = self.in_use.take_if(|_| failure.code.refuses_the_token()) else {
            return (self, vec![]);
        };
        self.refused.push(held.token.secret().clone());
        if held.origin != Origin::Candidate {
            return (self, vec![]);
        }
        self.pending_rejection = held.offer.map(|offer| (offer, failure.clone().into()));
        (self, vec![Effect::Discard])
    }

    /// Whether there is a token that was not refused.
    pub fn has_another(&self) -> bool {
        self.held.iter().any(|held| !self.was_refused(held))
    }

    fn was_refused(&self, held: &Held) -> bool {
        self.refused.iter().any(|secret| held.is(secret))
    }

    fn weigh(&self, offer: &TokenOffer, wall: Timestamp, now: Instant) -> Result<(), ErrorReport> {
        let refused = |message: &str| Err(ErrorReport::new(ErrorCode::OfferRefused, message));
        let Some(held) = &self.in_use else { return refused("no token is in use that it could replace") };
        if self.is_unkept() {
            let message = "the token in use could not be put in order yet".to_owned();
            return Err(ErrorReport::new(ErrorCode::FileFailed, message));
        }
        let present = held.token.claims();
        let offered = NodeClaims::read_unverified(&offer.token)
            .map_err(|error| ErrorReport::new(ErrorCode::TokenInvalid, error.to_string()))?;
        if offered.sub != present.sub {
            return Err(ErrorReport::new(ErrorCode::TokenForeign, format!("it is of node {}", offered.sub)));
        }
        if offered.expired(wall) {
            let message = format!("it ended at {}, and it is {wall} here", offered.expires_at());
            return Err(ErrorReport::new(ErrorCode::TokenExpired, message));
        }
        if offered.exp <= present.exp {
            return refused("it ends no later than the one in use");
        }
        if offered.iat < present.iat {
            return refused("it is older than the one in use");
        }
        // Elsewhere, a network that fails would be no verdict either, and the node could be lost
        // there for good.
        if offered.ctl != present.ctl && !self.endpoint_is_given {
            return refused("it is for another endpoint than the one in use");
        }
        if offered.ca != present.ca {
            return refused("it names another authority than the one in use");
        }
        if self.exchanged.is_some_and(|at| now < at + life(present) / 10) {
            return refused("the one in use is new");
        }
        Ok(())
    }
}

/// How long the token lives in all; no clock of this machine's is in it.
fn life(claims: &NodeClaims) -> Duration {
    Duration::from_secs(u64::try_from(claims.exp.saturating_sub(claims.iat)).unwrap_or_default())
}

#[cfg(test)]
mod tests;
