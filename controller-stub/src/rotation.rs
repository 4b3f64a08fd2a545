//! When a worker is offered a new token in place of the one that it uses. Pure; `rotation/offers.rs` makes
//! the offers.
//!
//! ```text
//!            two thirds of the token's life are over
//! (in use) ──────────────────────────────────────────▶ Offered ── welcomed with the new one: the old is revoked ──▶ Taken
//!                                                        │  ▲
//!                      rejected, or not taken for a while▼  │ another, which revokes the one before
//!                                                       (waiting, longer each time)
//! ```
//!
//! The old token stays valid until the worker was welcomed with the new one, and no more than one offer is
//! open at a time: whatever crashes between two steps, one token works, and in the end only one does. The
//! offered token itself is kept nowhere; after a restart a worker that holds it may still come with it, and
//! any other is offered another.

pub(crate) mod offers;

use std::time::Duration;

use aio_protocol::time::Timestamp;

use crate::store::History;

/// The first wait after an offer is this part of the last third of a token's life, and the longest that part.
const FIRST_WAIT: u32 = 24;
const LONGEST_WAIT: u32 = 8;

/// The first wait is no longer than this, however long the token lives.
const FIRST_WAIT_AT_MOST: Duration = Duration::from_secs(3600);

/// Tokens that live for minutes only are for tests; their offers must not wear the database.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// A worker that rejected an offer is asked this many times later than one that was silent.
const SLOWER_WHEN_REJECTED: u32 = 4;

/// The life of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

impl Life {
    /// How long the token lives in all.
    pub(crate) fn length(self) -> Duration {
        self.expires_at.since(self.issued_at)
    }

    /// When the next offer is due. One that was made later than `now` was made by a clock that was
    /// wrong, and holds up nothing.
    pub(crate) fn next_offer(self, history: History, now: Timestamp) -> Timestamp {
        let last_third = self.length() / 3;
        match history.last {
            None => self.issued_at.plus(self.length() - last_third),
            Some(last) if last > now => now,
            Some(last) => last.plus(wait(last_third, history)),
        }
    }
}

fn wait(last_third: Duration, history: History) -> Duration {
    let first = FIRST_WAIT_AT_MOST.min(last_third / FIRST_WAIT);
    let doubled = first.saturating_mul(2_u32.saturating_pow(history.offers.saturating_sub(1)));
    let slower = if history.rejected { SLOWER_WHEN_REJECTED } else { 1 };
    doubled.saturating_mul(slower).min(last_third / LONGEST_WAIT).max(SHORTEST_WAIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const YEAR: Duration = Duration::from_secs(31_536_000);

    fn start() -> Timestamp {
        Timestamp::from_millis(1_765_454_400_000)
    }

    fn life(length: Duration) -> Life {
        Life { issued_at: start(), expires_at: start().plus(length) }
    }

    #[test]
    fn the_first_offer_comes_when_a_third_of_the_life_is_left() {
        assert_eq!(life(HOUR * 3).next_offer(History::default(), start()), start().plus(HOUR * 2));
        assert_eq!(life(YEAR).next_offer(History::default(), start()), start().plus(YEAR / 3 * 2));
    }

    #[test]
    fn an_offer_made_by_a_clock_set_ahead_holds_up_no_other() {
        let history = History { offers: 1, last: Some(start().plus(YEAR)), rejected: true };
        assert_eq!(life(YEAR).next_offer(history, start()), start());
    }

    #[test]
    fn an_offer_that_is_not_taken_is_made_again_at_growing_intervals_and_later_when_given_back() {
        let wait = |length, offers, rejected| {
            let history = History { offers, last: Some(start()), rejected };
            life(length).next_offer(history, start()).since(start())
        };
        for (offers, hours) in [(1, 1), (2, 2), (3, 4), (5, 16), (10, 365), (20, 365)] {
            assert_eq!(wait(YEAR, offers, false), HOUR * hours, "{offers}");
        }
        assert_eq!(wait(YEAR, 1, true), HOUR * 4);
        let (first, second) = (wait(HOUR, 1, false), wait(HOUR, 2, false));
        assert_eq!((first, second), (Duration::from_secs(50), Duration::from_secs(100)));
        assert_eq!(wait(HOUR, 9, true), Duration::from_secs(150));
    }

    proptest! {
        #[test]
        fn a_worker_has_several_chances_and_is_never_offered_a_token_without_pause(
            secs in 3600_u64..31_536_000,
            rejected in any::<bool>(),
        ) {
            let life = life(Duration::from_secs(secs));
            let (mut history, mut offers) = (History::default(), 0);
            loop {
                let at = life.next_offer(history, history.last.unwrap_or(life.issued_at));
                if at >= life.expires_at {
                    break;
                }
                prop_assert!(history.last.is_none_or(|last| at.since(last) >= Duration::from_secs(50)));
                offers += 1;
                history = History { offers, last: Some(at), rejected };
            }
            prop_assert!((8..40).contains(&offers), "{offers} offers");
        }
    }
}
