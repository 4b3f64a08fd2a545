//! How many workers may connect at once and in a second, asked once a token's signature holds and before the
//! database is. Those beyond are told when to come back; the answer differs between peers, so that they do
//! not come together.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use aio_protocol::error_code::ErrorCode;
use axum::http::{HeaderValue, StatusCode, header};
use metrics::{counter, gauge};
use tokio::time::sleep;

use crate::{
    api::error::Rejection,
    rate::{Allowances, Rate},
};

/// Who is turned away comes back within this time.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Who waits for room looks again after some time of these, so that not all look at once.
const LOOK_AGAIN_MILLIS: std::ops::Range<u64> = 50..500;

pub(crate) struct Admission {
    handshakes: AtomicU32,
    most_handshakes: u32,
    upgrades: Allowances<()>,
}

/// The right to a handshake: from the request to `register.ack`. Dropping it makes room for another.
pub(crate) struct Handshake {
    admission: Arc<Admission>,
    /// When it began.
    pub since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// Too many handshakes are in flight.
    Handshakes,
    /// Too many upgrades were asked for in this second.
    Rate,
    /// The controller is about to stop.
    Stopping,
    /// The controller does not reach the database that it shares.
    CutOff,
}

impl Admission {
    /// Room for `most_handshakes` at once, and `upgrades_per_second`.
    pub(crate) fn new(most_handshakes: u32, upgrades_per_second: NonZeroU32) -> Self {
        Self {
            handshakes: AtomicU32::new(0),
            most_handshakes,
            upgrades: Allowances::new(Rate::per_second(upgrades_per_second)),
        }
    }

    /// Lets a peer begin, unless too many do.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<Handshake, TurnedAway> {
        self.enter().inspect_err(|why| why.count())?;
        gauge!("aio_gateway_handshakes").increment(1);
        Ok(Handshake { admission: self.clone(), since: Instant::now() })
    }

    /// The same for a peer that has no other try: it waits for room, at most for `patience`.
    pub(crate) async fn begin_within(self: &Arc<Self>, patience: Duration) -> Result<Handshake, TurnedAway> {
        let deadline = Instant::now() + patience;
        loop {
            match self.enter() {
                Ok(()) => break,
                Err(why) if Instant::now() >= deadline => {
                    why.count();
                    return Err(why);
                }
                Err(_) => sleep(Duration::from_millis(fastrand::u64(LOOK_AGAIN_MILLIS))).await,
            }
        }
        gauge!("aio_gateway_handshakes").increment(1);
        Ok(Handshake { admission: self.clone(), since: Instant::now() })
    }

    fn enter(&self) -> Result<(), TurnedAway> {
        let entered = self.handshakes.try_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < self.most_handshakes).then_some(count + 1)
        });
        entered.map_err(|_| TurnedAway::Handshakes)?;
        if self.upgrades.spend((), 1, Instant::now()).is_err() {
            self.leave();
            return Err(TurnedAway::Rate);
        }
        Ok(())
    }

    fn leave(&self) {
        self.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.admission.leave();
        gauge!("aio_gateway_handshakes").decrement(1);
    }
}

impl TurnedAway {
    pub(crate) fn count(self) {
        counter!("aio_gateway_refusals_total", "reason" => self.as_str()).increment(1);
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Handshakes => "handshakes",
            Self::Rate => "rate",
            Self::Stopping => "stopping",
            Self::CutOff => "cut_off",
        }
    }
}

impl From<TurnedAway> for Rejection {
    fn from(_: TurnedAway) -> Self {
        let pause = Duration::from_millis(fastrand::u64(0..LONGEST_WAIT.as_secs() * 1000));
        let message = "more workers connect than the controller takes at once";
        Self::later(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::RateLimited, message, pause)
            .with(header::CONNECTION, HeaderValue::from_static("close"))
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn there_is_room_for_so_many_handshakes_and_who_leaves_makes_room() {
        let admission = Admission::new(2, NonZeroU32::MAX);
        assert_eq!((admission.enter(), admission.enter()), (Ok(()), Ok(())));
        assert_eq!(admission.enter(), Err(TurnedAway::Handshakes));
        admission.leave();
        assert_eq!(admission.enter(), Ok(()));
    }

    #[tokio::test]
    async fn who_has_no_other_try_waits_for_room() {
        let admission = Arc::new(Admission::new(1, NonZeroU32::MAX));
        let first = admission.begin().ok().unwrap();
        let mut next = std::pin::pin!(admission.begin_within(LONGEST_WAIT));
        let moment = Duration::from_millis(50);
        assert!(tokio::time::timeout(moment, &mut next).await.is_err(), "there is no room yet");
        drop(first);
        drop(next.await.ok().unwrap());
        let _held = admission.begin().ok().unwrap();
        assert!(admission.begin_within(Duration::ZERO).await.is_err());
    }

    #[test]
    fn no_more_come_in_a_second_than_are_allowed_and_who_is_refused_holds_no_room() {
        let admission = Admission::new(8, NonZeroU32::new(3).unwrap());
        let entered = (0..100).filter(|_| admission.enter() == Ok(())).count();
        assert_eq!(entered, 3);
        assert_eq!(admission.handshakes.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn who_is_turned_away_learns_when_to_come_back_and_not_all_the_same() {
        let waits: std::collections::BTreeSet<u64> = (0..200)
            .map(|_| {
                let response = Rejection::from(TurnedAway::Rate).into_response();
                assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
                response.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap()
            })
            .collect();
        assert!(
            waits.len() > 3 && waits.iter().all(|wait| (1..=LONGEST_WAIT.as_secs()).contains(wait)),
            "{waits:?}"
        );
    }
}
