//! How many connections there may be, in all and per holder. When there is no room, a quiet connection is closed: the oldest that has not
//! said a byte, or else the one that has been without a request the longest. At a holder's own limit it is one of that holder's, at the
//! common limit one of the largest holder's. A worker's socket leaves the table when it is
//! upgraded; registered nodes limit those.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::holder::Holder;

/// Every connection without an upgrade.
pub(crate) struct Seats {
    total: usize,
    per_holder: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    seated: HashMap<u64, Seated>,
    holders: HashMap<Holder, Crowd>,
    /// Counts seats and quiet times, so that smaller is earlier.
    next: u64,
}

struct Seated {
    holder: Holder,
    /// Its key in `Crowd::quiet`.
    quiet: Option<Quiet>,
    has_spoken: bool,
    evicted: Arc<Notify>,
}

#[derive(Default)]
struct Crowd {
    size: usize,
    /// Those without a request, in the order in which they make room.
    quiet: BTreeMap<Quiet, u64>,
}

/// Whether a connection has spoken, and since when it has no request.
type Quiet = (bool, u64);

/// A connection's place. Dropping it makes room for another.
pub(crate) struct Seat {
    seats: Arc<Seats>,
    id: u64,
    /// Whether only the limit of all connections counts for it.
    shared: bool,
    evicted: Arc<Notify>,
}

impl Seats {
    pub(crate) fn new(total: usize, per_holder: usize) -> Arc<Self> {
        Arc::new(Self { total, per_holder, table: Mutex::default() })
    }

    /// A place for a new connection, at another's cost if need be. `None` when all are busy.
    pub(crate) fn take(self: &Arc<Self>, holder: Holder) -> Option<Seat> {
        let mut table = self.table();
        let size = table.holders.get(&holder).map_or(0, |crowd| crowd.size);
        if holder != Holder::Proxy && size >= self.per_holder && !table.evict_of(&holder) {
            return None;
        }
        if table.seated.len() >= self.total && !table.evict_any() {
            return None;
        }
        let (id, evicted) = (table.number(), Arc::new(Notify::new()));
        let shared = holder == Holder::Proxy;
        table.seated.insert(
            id,
            Seated { holder: holder.clone(), quiet: None, has_spoken: false, evicted: evicted.clone() },
        );
        table.holders.entry(holder).or_default().size += 1;
        table.quieten(id);
        Some(Seat { seats: self.clone(), id, shared, evicted })
    }

    /// Closes the quietest connection of the largest holder. Whether there was one.
    pub(crate) fn relieve(&self) -> bool {
        self.table().evict_any()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn quieten(&mut self, id: u64) {
        let since = self.number();
        if let Some(seated) = self.seated.get_mut(&id)
            && let Some(crowd) = self.holders.get_mut(&seated.holder)
        {
            let quiet = (seated.has_spoken, since);
            seated.quiet = Some(quiet);
            crowd.quiet.insert(quiet, id);
        }
    }

    fn rouse(&mut self, id: u64) {
        if let Some(seated) = self.seated.get_mut(&id)
            && let Some(quiet) = seated.quiet.take()
            && let Some(crowd) = self.holders.get_mut(&seated.holder)
        {
            crowd.quiet.remove(&quiet);
        }
    }

    fn remove(&mut self, id: u64) -> Option<Seated> {
        self.rouse(id);
        let seated = self.seated.remove(&id)?;
        if let Some(crowd) = self.holders.get_mut(&seated.holder) {
            crowd.size -= 1;
            if crowd.size == 0 {
                self.holders.remove(&seated.holder);
            }
        }
        Some(seated)
    }

    fn evict_of(&mut self, holder: &Holder) -> bool {
        let quietest = self.holders.get(holder).and_then(|crowd| crowd.quiet.values().next().copied());
        let Some(seated) = quietest.and_then(|id| self.remove(id)) else { return false };
        seated.evicted.notify_one();
        true
    }

    fn evict_any(&mut self) -> bool {
        let quiet = self.holders.iter().filter(|(_, crowd)| !crowd.quiet.is_empty());
        let largest = quiet.max_by_key(|(_, crowd)| crowd.size).map(|(holder, _)| holder.clone());
        largest.is_some_and(|holder| self.evict_of(&holder))
    }
}

impl Seat {
    /// It said its first byte.
    pub(super) fn speak(&self) {
        let mut table = self.seats.table();
        if let Some(seated) = table.seated.get_mut(&self.id)
            && let Some((_, since)) = seated.quiet
        {
            (seated.has_spoken, seated.quiet) = (true, Some((true, since)));
            let holder = seated.holder.clone();
            if let Some(crowd) = table.holders.get_mut(&holder) {
                crowd.quiet.remove(&(false, since));
                crowd.quiet.insert((true, since), self.id);
            }
        }
    }

    /// It is busy, and is not closed for another.
    pub(super) fn rouse(&self) {
        self.seats.table().rouse(self.id);
    }

    /// It has none.
    pub(super) fn quieten(&self) {
        self.seats.table().quieten(self.id);
    }

    /// A token that it showed was accepted: from now on it counts for whom the token speaks for.
    pub(super) fn assign(&self, holder: Holder) {
        if self.shared {
            return;
        }
        let mut table = self.seats.table();
        let known = table.seated.get(&self.id);
        if known.is_none_or(|seated| seated.holder == holder) {
            return;
        }
        // The limit of a holder that has just been proven is enforced at its next connection.
        if let Some(seated) = table.remove(self.id) {
            table.holders.entry(holder.clone()).or_default().size += 1;
            table.seated.insert(self.id, Seated { holder, ..seated });
        }
    }

    /// Ends when the place was given to another.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.table().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn site(last: u8) -> Holder {
        Holder::Site([192, 0, 2, last].into())
    }

    fn is_evicted(seat: &Seat) -> bool {
        seat.evicted().now_or_never().is_some()
    }

    #[test]
    fn at_its_own_limit_a_site_loses_its_quietest_connection_and_no_other_site_does() {
        let seats = Seats::new(100, 2);
        let other = seats.take(site(9)).unwrap();
        let (first, second) = (seats.take(site(1)).unwrap(), seats.take(site(1)).unwrap());
        first.rouse();
        let third = seats.take(site(1)).unwrap();
        assert!(is_evicted(&second) && !is_evicted(&first) && !is_evicted(&other));
        third.rouse();
        assert!(seats.take(site(1)).is_none(), "both are busy");
        first.quieten();
        assert!(seats.take(site(1)).is_some());
        assert!(is_evicted(&first));
    }

    #[test]
    fn who_has_not_said_a_byte_goes_before_who_is_in_the_middle_of_it() {
        let seats = Seats::new(100, 2);
        let (speaker, silent) = (seats.take(site(1)).unwrap(), seats.take(site(1)).unwrap());
        speaker.speak();
        let third = seats.take(site(1)).unwrap();
        assert!(is_evicted(&silent) && !is_evicted(&speaker));
        third.speak();
        let _fourth = seats.take(site(1)).unwrap();
        assert!(is_evicted(&speaker) && !is_evicted(&third));
    }

    #[test]
    fn at_the_common_limit_the_largest_holder_makes_room() {
        let seats = Seats::new(4, 3);
        let small = seats.take(site(1)).unwrap();
        let large: Vec<_> = (0..3).map(|_| seats.take(site(2)).unwrap()).collect();
        let _newcomer = seats.take(site(3)).unwrap();
        assert!(is_evicted(&large[0]) && !is_evicted(&large[1]) && !is_evicted(&small));
    }

    #[test]
    fn who_leaves_makes_room_and_nothing_is_kept_of_them() {
        let seats = Seats::new(2, 1);
        drop(seats.take(site(1)).unwrap());
        assert!(seats.table().holders.is_empty() && seats.table().seated.is_empty());
        let seat = seats.take(site(1)).unwrap();
        seat.rouse();
        seat.assign(Holder::Organisation("acme".parse().unwrap()));
        assert!(seats.take(site(1)).is_some(), "the first counts for its organisation");
    }

    #[test]
    fn a_proxy_may_have_all_of_them() {
        let seats = Seats::new(4, 1);
        let taken: Vec<_> = (0..4).map(|_| seats.take(Holder::Proxy).unwrap()).collect();
        taken.iter().for_each(Seat::rouse);
        assert!(seats.take(Holder::Proxy).is_none());
        taken[0].assign(site(1));
        assert_eq!(seats.table().holders[&Holder::Proxy].size, 4);
    }
}
