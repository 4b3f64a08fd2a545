//! Where this controller stands among those that serve the database together. One that serves alone leads,
//! and its number is 0. `sightings` (pure) says who is silent; the dialect keeps the place by beats.

mod sightings;

use std::time::{Duration, Instant};

use tokio::sync::watch;

pub(super) use sightings::Sightings;

/// Who cannot beat for so long closes its workers' sockets: the others are about to take it for dead.
const CUT_OFF_AFTER: Duration = Duration::from_secs(10);

/// What the last beat found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub leads: bool,
    pub has_others: bool,
    /// How often another has gone, or this one begun to lead.
    pub departures: u64,
    pub beaten_at: Instant,
}

/// This controller's place. Clones share it.
#[derive(Clone)]
pub(crate) struct Membership(Option<Place>);

#[derive(Clone)]
struct Place {
    number: i64,
    standing: watch::Receiver<Standing>,
}

/// Sets where a member stands.
pub(super) struct Seat {
    standing: watch::Sender<Standing>,
}

impl Seat {
    pub(super) fn new() -> Self {
        let standing = Standing { leads: false, has_others: false, departures: 0, beaten_at: Instant::now() };
        Self { standing: watch::Sender::new(standing) }
    }

    /// The place that a member of this number has.
    pub(super) fn place(&self, number: i64) -> Membership {
        Membership(Some(Place { number, standing: self.standing.subscribe() }))
    }

    /// Notes what a beat has found.
    pub(super) fn beaten(&self, leads: bool, has_others: bool, somebody_left: bool) {
        self.standing.send_modify(|standing| {
            let news = somebody_left || leads && !standing.leads;
            *standing = Standing {
                leads,
                has_others,
                departures: standing.departures + u64::from(news),
                beaten_at: Instant::now(),
            };
        });
    }
}

impl Membership {
    /// Of a controller that serves alone.
    pub(crate) fn alone() -> Self {
        Self(None)
    }

    /// What nodes name as their holder; never that of another process.
    pub(crate) fn number(&self) -> i64 {
        self.0.as_ref().map_or(0, |place| place.number)
    }

    /// Whether others may serve the database, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.0.is_some()
    }

    /// Whether this is the one that does what is done once.
    pub(crate) fn leads(&self) -> bool {
        self.0.as_ref().is_none_or(|place| place.standing.borrow().leads)
    }

    /// Waits until this one leads, which it does then until it ends.
    pub(crate) async fn led(&self) {
        let Some(place) = &self.0 else { return };
        let mut standing = place.standing.clone();
        if standing.wait_for(|standing| standing.leads).await.is_err() {
            // Nobody beats any more, so this process ends.
            std::future::pending().await
        }
    }

    /// Whether the others are about to take this one for dead: it has not reached the database for a while.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.0.as_ref().is_some_and(|place| {
            let standing = place.standing.borrow();
            standing.has_others && standing.beaten_at.elapsed() > CUT_OFF_AFTER
        })
    }

    /// How often another has gone, or this one begun to lead.
    pub(crate) fn departures(&self) -> u64 {
        self.0.as_ref().map_or(0, |place| place.standing.borrow().departures)
    }
}
