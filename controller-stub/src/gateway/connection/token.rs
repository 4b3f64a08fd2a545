//! What a connection does about its token: settles an offered one when its worker is welcomed with it, and
//! offers a new one when it is time.

use std::time::{Duration, Instant};

use aio_protocol::{
    time::Timestamp,
    wire::{self, CommandAck, CommandStatus, close},
};

use super::{Connection, End};
use crate::{
    clock,
    rotation::offers::{self, Next},
    store::History,
};

/// Offers that are due at once, after a restart say, are spread over this time.
const LONGEST_OFFER_JITTER: Duration = Duration::from_secs(60);

/// Longest time between two looks at when an offer is due.
const LONGEST_OFFER_WAIT: Duration = Duration::from_secs(6 * 3600);

/// An offer that could not be made is tried again so much later.
const OFFER_RETRY: Duration = Duration::from_secs(300);

pub(super) const REVOKED: End = End::Close {
    code: close::TOKEN_ENDED,
    reason: std::borrow::Cow::Borrowed("TOKEN_REVOKED: the token was revoked"),
};

impl Connection {
    /// The worker was welcomed: if it came with the token that it was offered, that is now its only one.
    pub(super) async fn settle_token(&mut self) -> Result<(), End> {
        if self.token.offered {
            match offers::take(&self.app.store, &self.node, &self.token.jti, clock::now()).await {
                Ok(true) => {}
                Ok(false) => return Err(REVOKED),
                Err(error) => return Err(self.unstored(&error)),
            }
        }
        self.plan_offer(self.token.life.next_offer(History::default(), clock::now()));
        Ok(())
    }

    /// Asks again after [`LONGEST_OFFER_WAIT`] at the latest what is due: a clock that is set makes
    /// no wait longer.
    fn plan_offer(&mut self, due: Timestamp) {
        let jitter = LONGEST_OFFER_JITTER.min(self.token.life.length() / 60).mul_f64(fastrand::f64());
        self.timetable.offer_at(Instant::now() + due.since(clock::now()).min(LONGEST_OFFER_WAIT) + jitter);
    }

    pub(super) async fn offer_token(&mut self) -> Result<(), End> {
        match offers::next(&self.app.enroller, &self.node, &self.token, clock::now()).await {
            Ok(Next::Offer { message_id, offer }) => {
                // When to offer again is looked up when that is due: until then this one may be rejected.
                self.plan_offer(clock::now());
                self.send_text(wire::encode(&offer, message_id, clock::now())).await
            }
            Ok(Next::NotBefore(due)) => {
                self.plan_offer(due);
                Ok(())
            }
            Ok(Next::Revoked) => Err(REVOKED),
            Err(error) => {
                tracing::warn!(node = %self.node, error = &error as &dyn std::error::Error, "no new token could be offered");
                self.plan_offer(clock::now().plus(OFFER_RETRY));
                Ok(())
            }
        }
    }

    pub(super) async fn note_answer(&mut self, ack: &CommandAck) -> Result<(), End> {
        if ack.status != CommandStatus::Rejected {
            return Ok(());
        }
        self.spend_write()?;
        offers::reject(&self.app.store, &self.node, ack.original_message_id, ack.error.as_ref(), clock::now())
            .await
            .map_err(|error| self.unstored(&error))
    }
}
