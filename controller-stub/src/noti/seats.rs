//! How many dashboards may be connected: those whose token was accepted, shared between organisations, and a
//! few that have not shown one yet. Counts only; who is who is `dashboard`'s to decide.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aio_protocol::ids::OwnerId;

use crate::listener::holder::site;

/// Maximum number of dashboards with an accepted token, where the limit of open files is no lower.
const MAX_WATCHING: usize = 1024;

/// An organisation may take another seat while it has fewer than this many times the free ones:
/// none of them takes all, and an organisation alone has four fifths.
const SHARE: usize = 4;

/// Maximum number of dashboards that have not shown an accepted token.
const MAX_WAITING: usize = 64;

/// Maximum number of those from one address.
const MAX_WAITING_OF_ADDRESS: usize = 8;

#[derive(Clone)]
pub(crate) struct Seats {
    most: usize,
    watching: Arc<Taken<OwnerId>>,
    waiting: Arc<Taken<IpAddr>>,
}

/// Seats that are taken, by who has them.
struct Taken<K>(Mutex<HashMap<K, usize>>);

/// A seat that is taken until this is dropped.
pub(crate) struct Seat<K: Eq + Hash> {
    taken: Arc<Taken<K>>,
    of: K,
}

impl Seats {
    /// Seats for at most `most` dashboards, so that descriptors are left for workers.
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.min(MAX_WATCHING), watching: Arc::default(), waiting: Arc::default() }
    }

    /// A seat for a dashboard of this organisation, unless it has its share.
    pub(crate) fn watch(&self, organisation: &OwnerId) -> Option<Seat<OwnerId>> {
        self.watching.take(organisation, |own, all| own < self.most.saturating_sub(all) * SHARE)
    }

    /// A seat for a dashboard at this address that has no accepted token yet.
    pub(crate) fn wait(&self, address: IpAddr) -> Option<Seat<IpAddr>> {
        self.waiting.take(&site(address), |own, all| own < MAX_WAITING_OF_ADDRESS && all < MAX_WAITING)
    }
}

impl<K: Clone + Eq + Hash> Taken<K> {
    fn take(self: &Arc<Self>, of: &K, allowed: impl FnOnce(usize, usize) -> bool) -> Option<Seat<K>> {
        let mut taken = self.table();
        let own = taken.get(of).copied().unwrap_or_default();
        allowed(own, taken.values().sum()).then(|| {
            taken.insert(of.clone(), own + 1);
            Seat { taken: self.clone(), of: of.clone() }
        })
    }
}

impl<K> Taken<K> {
    fn table(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Default for Taken<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Drop for Seat<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.table();
        if let Some(count) = taken.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organisation(name: &str) -> OwnerId {
        name.parse().unwrap()
    }

    #[test]
    fn no_organisation_takes_the_seats_of_another() {
        let seats = Seats::new(MAX_WATCHING);
        let fill = |name| std::iter::from_fn(|| seats.watch(&organisation(name))).collect::<Vec<_>>();
        let greedy = fill("greedy");
        assert_eq!(greedy.len(), 820);
        let second = fill("second");
        assert!(second.len() > 100, "{}", second.len());
        assert!(fill("third").len() > 10);
        drop(greedy);
        assert!(seats.watch(&organisation("second")).is_some());
        drop(second);
        assert!(seats.watching.table().is_empty());
    }

    #[test]
    fn who_shows_no_token_takes_no_seat_of_those_who_do() {
        let seats = Seats::new(MAX_WATCHING);
        let address = |number: u8| IpAddr::from([192, 0, 2, number]);
        let of_one: Vec<_> = std::iter::from_fn(|| seats.wait(address(1))).collect();
        assert_eq!(of_one.len(), 8);
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert!(seats.wait(mapped).is_none(), "the same address in another form");
        let of_all: Vec<_> = (2..100).filter_map(|number| seats.wait(address(number))).collect();
        assert_eq!(of_all.len() + of_one.len(), 64);
        assert!(seats.watch(&organisation("acme")).is_some());
        drop(of_one);
        assert!(seats.wait(address(1)).is_some());
    }
}
