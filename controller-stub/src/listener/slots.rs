//! How many connections there may be, in all and per holder. When there is no room, a quiet connection is
//! closed: the oldest that has not said a byte, or else the one that has been without a request the longest.
//! At a holder's own limit it is one of that holder's, at the common limit one of the largest holder's. A
//! worker's socket leaves the table when it is upgraded; registered nodes limit those.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::holder::Holder;

/// Every connection without an upgrade.
pub(crate) struct Slots {
    total: usize,
    per_holder: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<u64, Entry>,
    holders: HashMap<Holder, Group>,
    /// Counts slots and quiet times, so that smaller is earlier.
    next: u64,
}

struct Entry {
    holder: Holder,
    /// Its key in `Group::quiet`.
    quiet: Option<Quiet>,
    heard: bool,
    evicted: Arc<Notify>,
}

#[derive(Default)]
struct Group {
    size: usize,
    /// Those without a request, in the order in which they make room.
    quiet: BTreeMap<Quiet, u64>,
}

/// Whether a connection has spoken, and since when it has no request.
type Quiet = (bool, u64);

/// A connection's slot. Dropping it makes room for another.
pub(crate) struct Slot {
    slots: Arc<Slots>,
    id: u64,
    /// Whether only the limit of all connections counts for it.
    shared: bool,
    evicted: Arc<Notify>,
}

impl Slots {
    pub(crate) fn new(total: usize, per_holder: usize) -> Arc<Self> {
        Arc::new(Self { total, per_holder, table: Mutex::default() })
    }

    /// A slot for a new connection, at another's cost if need be. `None` when all are busy.
    pub(crate) fn take(self: &Arc<Self>, holder: Holder) -> Option<Slot> {
        let mut table = self.table();
        let size = table.holders.get(&holder).map_or(0, |group| group.size);
        if holder != Holder::Proxy && size >= self.per_holder && !table.evict_of(&holder) {
            return None;
        }
        if table.entries.len() >= self.total && !table.evict_any() {
            return None;
        }
        let (id, evicted) = (table.number(), Arc::new(Notify::new()));
        let shared = holder == Holder::Proxy;
        table.entries.insert(
            id,
            Entry { holder: holder.clone(), quiet: None, heard: false, evicted: evicted.clone() },
        );
        table.holders.entry(holder).or_default().size += 1;
        table.set_quiet(id);
        Some(Slot { slots: self.clone(), id, shared, evicted })
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

    fn set_quiet(&mut self, id: u64) {
        let since = self.number();
        if let Some(entry) = self.entries.get_mut(&id)
            && let Some(group) = self.holders.get_mut(&entry.holder)
        {
            let quiet = (entry.heard, since);
            entry.quiet = Some(quiet);
            group.quiet.insert(quiet, id);
        }
    }

    fn set_busy(&mut self, id: u64) {
        if let Some(entry) = self.entries.get_mut(&id)
            && let Some(quiet) = entry.quiet.take()
            && let Some(group) = self.holders.get_mut(&entry.holder)
        {
            group.quiet.remove(&quiet);
        }
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        self.set_busy(id);
        let entry = self.entries.remove(&id)?;
        if let Some(group) = self.holders.get_mut(&entry.holder) {
            group.size -= 1;
            if group.size == 0 {
                self.holders.remove(&entry.holder);
            }
        }
        Some(entry)
    }

    fn evict_of(&mut self, holder: &Holder) -> bool {
        let quietest = self.holders.get(holder).and_then(|group| group.quiet.values().next().copied());
        let Some(entry) = quietest.and_then(|id| self.remove(id)) else { return false };
        entry.evicted.notify_one();
        true
    }

    fn evict_any(&mut self) -> bool {
        let quiet = self.holders.iter().filter(|(_, group)| !group.quiet.is_empty());
        let largest = quiet.max_by_key(|(_, group)| group.size).map(|(holder, _)| holder.clone());
        largest.is_some_and(|holder| self.evict_of(&holder))
    }
}

impl Slot {
    /// It said its first byte.
    pub(super) fn set_heard(&self) {
        let mut table = self.slots.table();
        if let Some(entry) = table.entries.get_mut(&self.id)
            && let Some((_, since)) = entry.quiet
        {
            (entry.heard, entry.quiet) = (true, Some((true, since)));
            let holder = entry.holder.clone();
            if let Some(group) = table.holders.get_mut(&holder) {
                group.quiet.remove(&(false, since));
                group.quiet.insert((true, since), self.id);
            }
        }
    }

    /// It is busy, and is not closed for another.
    pub(super) fn set_busy(&self) {
        self.slots.table().set_busy(self.id);
    }

    /// It has none.
    pub(super) fn set_quiet(&self) {
        self.slots.table().set_quiet(self.id);
    }

    /// A token that it showed was accepted: from now on it counts for whom the token speaks for.
    pub(super) fn assign(&self, holder: Holder) {
        if self.shared {
            return;
        }
        let mut table = self.slots.table();
        let known = table.entries.get(&self.id);
        if known.is_none_or(|entry| entry.holder == holder) {
            return;
        }
        // The limit of a holder that has just been proven is enforced at its next connection.
        if let Some(entry) = table.remove(self.id) {
            table.holders.entry(holder.clone()).or_default().size += 1;
            table.entries.insert(self.id, Entry { holder, ..entry });
        }
    }

    /// Ends when the slot was given to another.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.table().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn site(last: u8) -> Holder {
        Holder::Site([192, 0, 2, last].into())
    }

    fn is_evicted(slot: &Slot) -> bool {
        slot.evicted().now_or_never().is_some()
    }

    #[test]
    fn at_its_own_limit_a_site_loses_its_quietest_connection_and_no_other_site_does() {
        let slots = Slots::new(100, 2);
        let other = slots.take(site(9)).unwrap();
        let (first, second) = (slots.take(site(1)).unwrap(), slots.take(site(1)).unwrap());
        first.set_busy();
        let third = slots.take(site(1)).unwrap();
        assert!(is_evicted(&second) && !is_evicted(&first) && !is_evicted(&other));
        third.set_busy();
        assert!(slots.take(site(1)).is_none(), "both are busy");
        first.set_quiet();
        assert!(slots.take(site(1)).is_some());
        assert!(is_evicted(&first));
    }

    #[test]
    fn who_has_not_said_a_byte_goes_before_who_is_in_the_middle_of_it() {
        let slots = Slots::new(100, 2);
        let (speaker, silent) = (slots.take(site(1)).unwrap(), slots.take(site(1)).unwrap());
        speaker.set_heard();
        let third = slots.take(site(1)).unwrap();
        assert!(is_evicted(&silent) && !is_evicted(&speaker));
        third.set_heard();
        let _fourth = slots.take(site(1)).unwrap();
        assert!(is_evicted(&speaker) && !is_evicted(&third));
    }

    #[test]
    fn at_the_common_limit_the_largest_holder_makes_room() {
        let slots = Slots::new(4, 3);
        let small = slots.take(site(1)).unwrap();
        let large: Vec<_> = (0..3).map(|_| slots.take(site(2)).unwrap()).collect();
        let _newcomer = slots.take(site(3)).unwrap();
        assert!(is_evicted(&large[0]) && !is_evicted(&large[1]) && !is_evicted(&small));
    }

    #[test]
    fn who_leaves_makes_room_and_nothing_is_kept_of_them() {
        let slots = Slots::new(2, 1);
        drop(slots.take(site(1)).unwrap());
        assert!(slots.table().holders.is_empty() && slots.table().entries.is_empty());
        let slot = slots.take(site(1)).unwrap();
        slot.set_busy();
        slot.assign(Holder::Organisation("acme".parse().unwrap()));
        assert!(slots.take(site(1)).is_some(), "the first counts for its organisation");
    }

    #[test]
    fn a_proxy_may_have_all_of_them() {
        let slots = Slots::new(4, 1);
        let taken: Vec<_> = (0..4).map(|_| slots.take(Holder::Proxy).unwrap()).collect();
        taken.iter().for_each(Slot::set_busy);
        assert!(slots.take(Holder::Proxy).is_none());
        taken[0].assign(site(1));
        assert_eq!(slots.table().holders[&Holder::Proxy].size, 4);
    }
}
