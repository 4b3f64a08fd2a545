//! Leases: a table of deadlines on the monotonic clock, which the caller reads. Used twice: for workers
//! (renewed by their messages) and for installations (renewed by their reports). It decides only which leases
//! have expired.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aio_protocol::{
    ids::{NodeId, OwnerId},
    time::Timestamp,
};

use crate::brake::{Fleet, Scope};

pub(crate) struct Leases {
    length: Duration,
    entries: Mutex<HashMap<NodeId, Lease>>,
}

/// How the leases stand, by organisation.
#[derive(Default)]
pub(crate) struct Survey {
    pub fleets: HashMap<OwnerId, Fleet>,
    /// Nodes whose leases have expired.
    pub expired: HashMap<OwnerId, Vec<NodeId>>,
}

struct Lease {
    organisation: OwnerId,
    ends: Instant,
    seen: Option<Timestamp>,
    stored: bool,
    /// How often the node had been saved when this was looked at last.
    saves: Option<i64>,
}

impl Leases {
    /// An empty table whose leases last `length`.
    pub(crate) fn new(length: Duration) -> Self {
        Self { length, entries: Mutex::default() }
    }

    /// How long a lease lasts.
    pub(crate) fn length(&self) -> Duration {
        self.length
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries().len()
    }

    /// Gives `id` a whole lease because something was heard at `seen`.
    pub(crate) fn grant(&self, id: &NodeId, organisation: &OwnerId, now: Instant, seen: Timestamp) {
        let organisation = organisation.clone();
        let lease =
            Lease { organisation, ends: now + self.length, seen: Some(seen), stored: false, saves: None };
        self.entries().insert(id.clone(), lease);
    }

    /// Gives `id` a whole lease although nothing was heard, unless one runs: after a restart, nobody is late.
    pub(crate) fn grant_amnesty(&self, id: &NodeId, organisation: OwnerId, now: Instant) {
        let lease = Lease { organisation, ends: now + self.length, seen: None, stored: true, saves: None };
        self.entries().entry(id.clone()).or_insert(lease);
    }

    /// Renews a lease that runs. One that has ended stays ended.
    pub(crate) fn renew(&self, id: &NodeId, now: Instant, seen: Timestamp) {
        if let Some(lease) = self.entries().get_mut(id) {
            (lease.ends, lease.seen, lease.stored) = (now + self.length, Some(seen), false);
        }
    }

    /// Notes how often the node was saved; where that is more than before, it was heard of elsewhere, and its
    /// lease is a whole one.
    pub(crate) fn note_saves(&self, id: &NodeId, saves: i64, now: Instant) {
        if let Some(lease) = self.entries().get_mut(id)
            && lease.saves.replace(saves).is_some_and(|before| before != saves)
        {
            lease.ends = now + self.length;
        }
    }

    /// Lets a lease end by then at the latest.
    pub(crate) fn shorten(&self, id: &NodeId, by: Instant) {
        if let Some(lease) = self.entries().get_mut(id) {
            lease.ends = lease.ends.min(by);
        }
    }

    /// Whose these nodes are, of those that have a lease.
    pub(crate) fn owners_of(&self, ids: Vec<NodeId>) -> Vec<(NodeId, OwnerId)> {
        let entries = self.entries();
        let owned = ids.into_iter().filter_map(|id| {
            let organisation = entries.get(&id)?.organisation.clone();
            Some((id, organisation))
        });
        owned.collect()
    }

    /// Ends the lease.
    pub(crate) fn end(&self, id: &NodeId) {
        self.entries().remove(id);
    }

    /// Makes every lease of `scope` that ends within `window`, or has ended, a whole one, although
    /// nothing was heard.
    pub(crate) fn pardon(&self, scope: &Scope, now: Instant, window: Duration) {
        for lease in self.entries().values_mut().filter(|lease| lease.ends <= now + window) {
            if matches!(scope, Scope::All)
                || matches!(scope, Scope::Organisation(it) if *it == lease.organisation)
            {
                lease.ends = now + self.length;
            }
        }
    }

    /// Makes every lease last longer.
    pub(crate) fn postpone(&self, by: Duration) {
        self.entries().values_mut().for_each(|lease| lease.ends += by);
    }

    /// How the leases stand, seen from `now`; those that end within `window` count as silent.
    pub(crate) fn survey(&self, now: Instant, window: Duration) -> Survey {
        let mut survey = Survey::default();
        for (id, Lease { organisation, ends, .. }) in self.entries().iter() {
            if !survey.fleets.contains_key(organisation) {
                survey.fleets.insert(organisation.clone(), Fleet::default());
            }
            let Some(fleet) = survey.fleets.get_mut(organisation) else { continue };
            fleet.leased += 1;
            fleet.silent += usize::from(*ends <= now + window);
            if *ends <= now {
                fleet.expired += 1;
                survey.expired.entry(organisation.clone()).or_default().push(id.clone());
            }
        }
        survey
    }

    /// Nodes whose leases have expired.
    pub(crate) fn expired(&self, now: Instant) -> Vec<NodeId> {
        self.entries().iter().filter(|(_, lease)| lease.ends <= now).map(|(id, _)| id.clone()).collect()
    }

    /// Whether the lease of `id` has expired, and was not renewed or ended meanwhile.
    pub(crate) fn has_expired(&self, id: &NodeId, now: Instant) -> bool {
        self.entries().get(id).is_some_and(|lease| lease.ends <= now)
    }

    /// When `id` was last heard of, if this process heard of it.
    pub(crate) fn last_seen(&self, id: &NodeId) -> Option<Timestamp> {
        self.entries().get(id)?.seen
    }

    /// When a node was last heard of that was stored as last seen at `stored`. A stored time in the
    /// future is from a clock that was wrong.
    pub(crate) fn last_seen_or(
        &self,
        id: &NodeId,
        stored: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        self.last_seen(id).or(stored).map(|seen| seen.min(now))
    }

    /// Nodes that were heard of since the last call, and when: what the store does not know yet.
    pub(crate) fn take_unstored(&self) -> Vec<(NodeId, Timestamp)> {
        let mut entries = self.entries();
        let fresh = entries.iter_mut().filter(|(_, lease)| !lease.stored);
        fresh
            .filter_map(|(id, lease)| {
                lease.stored = true;
                Some((id.clone(), lease.seen?))
            })
            .collect()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<NodeId, Lease>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(120);

    fn id() -> NodeId {
        NodeId::from_bytes([7; 12])
    }

    fn org() -> OwnerId {
        "acme".parse().unwrap()
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_lease_runs_out_exactly_after_its_length_and_a_message_renews_it() {
        let (leases, start) = (Leases::new(LENGTH), Instant::now());
        leases.grant(&id(), &org(), start, at(1));
        assert!(leases.expired(start + LENGTH - Duration::from_millis(1)).is_empty());
        assert_eq!(leases.expired(start + LENGTH), [id()]);
        leases.renew(&id(), start + LENGTH, at(2));
        assert!(!leases.has_expired(&id(), start + LENGTH));
        assert!(leases.has_expired(&id(), start + LENGTH * 2));
        assert_eq!(leases.last_seen(&id()), Some(at(2)));
    }

    #[test]
    fn a_lease_that_was_taken_away_is_not_renewed() {
        let (leases, start) = (Leases::new(LENGTH), Instant::now());
        leases.grant(&id(), &org(), start, at(1));
        leases.end(&id());
        leases.renew(&id(), start, at(2));
        assert_eq!(leases.last_seen(&id()), None);
        assert!(leases.expired(start + LENGTH * 9).is_empty());
    }

    #[test]
    fn amnesty_lasts_a_whole_lease_and_claims_no_sighting() {
        let (leases, start) = (Leases::new(LENGTH), Instant::now());
        leases.grant_amnesty(&id(), org(), start);
        assert!(!leases.has_expired(&id(), start + LENGTH - Duration::from_millis(1)));
        assert_eq!((leases.last_seen(&id()), leases.take_unstored()), (None, vec![]));
        leases.grant_amnesty(&id(), org(), start + LENGTH / 2);
        assert!(leases.has_expired(&id(), start + LENGTH), "and is granted once");
    }

    #[test]
    fn a_survey_tells_the_silent_from_those_whose_lease_has_ended() {
        let (leases, start) = (Leases::new(LENGTH), Instant::now());
        for (byte, secs) in [(1, 0), (2, 50), (3, 61)] {
            leases.grant(&NodeId::from_bytes([byte; 12]), &org(), start + Duration::from_secs(secs), at(1));
        }
        let minute = Duration::from_secs(60);
        let other: OwnerId = "other".parse().unwrap();
        leases.grant(&NodeId::from_bytes([4; 12]), &other, start, at(1));
        assert_eq!(leases.survey(start, minute).fleets[&org()], Fleet { leased: 3, silent: 0, expired: 0 });
        let Survey { fleets, expired } = leases.survey(start + LENGTH, minute);
        assert_eq!(fleets[&org()], Fleet { leased: 3, silent: 2, expired: 1 });
        assert_eq!(fleets[&other], Fleet { leased: 1, silent: 1, expired: 1 });
        assert_eq!(expired[&org()], [NodeId::from_bytes([1; 12])]);
    }

    #[test]
    fn a_pardon_claims_no_sighting_and_shortens_no_lease() {
        let (leases, start) = (Leases::new(LENGTH), Instant::now());
        leases.grant(&id(), &org(), start, at(1));
        leases.take_unstored();
        leases.pardon(&Scope::Organisation("other".parse().unwrap()), start + LENGTH, Duration::ZERO);
        assert!(leases.has_expired(&id(), start + LENGTH), "it is another's pardon");
        leases.pardon(&Scope::Organisation(org()), start + LENGTH, Duration::ZERO);
        assert!(!leases.has_expired(&id(), start + LENGTH * 2 - Duration::from_millis(1)));
        assert!(leases.has_expired(&id(), start + LENGTH * 2));
        assert_eq!((leases.last_seen(&id()), leases.take_unstored()), (Some(at(1)), vec![]));
        leases.pardon(&Scope::All, start, LENGTH);
        assert!(
            !leases.has_expired(&id(), start + LENGTH * 2 - Duration::from_millis(1)),
            "it is not silent"
        );
    }

    #[test]
    fn every_lease_lasts_longer_by_a_standstill() {
        let (leases, start) = (Leases::new(LENGTH), Instant::now());
        leases.grant(&id(), &org(), start, at(1));
        leases.postpone(LENGTH);
        assert!(!leases.has_expired(&id(), start + LENGTH));
        assert!(leases.has_expired(&id(), start + LENGTH * 2));
    }

    #[test]
    fn a_stored_time_in_the_future_is_overwritten() {
        let (leases, start, now) = (Leases::new(LENGTH), Instant::now(), at(1_000));
        for (stored, seen) in [(None, None), (Some(at(900)), Some(at(900))), (Some(at(9_000)), Some(now))] {
            assert_eq!(leases.last_seen_or(&id(), stored, now), seen);
        }
        leases.grant(&id(), &org(), start, at(990));
        assert_eq!(leases.last_seen_or(&id(), Some(at(9_000)), now), Some(at(990)));
    }

    #[test]
    fn each_sighting_is_handed_to_the_store_once() {
        let (leases, start) = (Leases::new(LENGTH), Instant::now());
        leases.grant(&id(), &org(), start, at(1));
        assert_eq!(leases.take_unstored(), [(id(), at(1))]);
        assert_eq!(leases.take_unstored(), []);
        leases.renew(&id(), start, at(5));
        assert_eq!(leases.take_unstored(), [(id(), at(5))]);
    }
}
