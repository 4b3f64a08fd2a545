//! How many downloads run at once, in all and per holder. Where there is no room, the slowest of those that are slow makes some: whoever
//! drips keeps nobody out.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::listener::holder::Holder;

/// A download that is slower than this, in bytes a second, makes room.
const SLOW: u64 = 64 * 1024;

/// A download shows after this time how fast it is.
const TRIAL: Duration = Duration::from_secs(5);

/// Every download that is on its way.
pub(crate) struct Downloads {
    total: usize,
    per_holder: usize,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    next: u64,
    downloads: HashMap<u64, Download>,
}

struct Download {
    holder: Holder,
    began: Instant,
    sent: Arc<AtomicU64>,
}

/// A download's place. Dropping it makes room for another.
pub(crate) struct Place {
    downloads: Arc<Downloads>,
    id: u64,
    sent: Arc<AtomicU64>,
}

impl Downloads {
    pub(crate) fn new(total: usize, per_holder: usize) -> Arc<Self> {
        Arc::new(Self { total, per_holder, running: Mutex::default() })
    }

    /// A place, at the cost of a slow one if need be.
    pub(crate) fn begin(self: &Arc<Self>, holder: Holder, now: Instant) -> Option<Place> {
        let mut running = self.running();
        let of_holder = running.downloads.values().filter(|download| download.holder == holder).count();
        if of_holder >= self.per_holder && !running.evict(now, |it| it.holder == holder) {
            return None;
        }
        if running.downloads.len() >= self.total && !running.evict(now, |_| true) {
            return None;
        }
        running.next += 1;
        let (id, sent) = (running.next, Arc::default());
        running.downloads.insert(id, Download { holder, began: now, sent: Arc::clone(&sent) });
        Some(Place { downloads: self.clone(), id, sent })
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn evict(&mut self, now: Instant, whose: impl Fn(&Download) -> bool) -> bool {
        let rates = self
            .downloads
            .iter()
            .filter(|(_, it)| whose(it))
            .filter_map(|(id, it)| Some((it.rate(now)?, *id)));
        let slowest = rates.min().filter(|(rate, _)| *rate < SLOW);
        slowest.is_some_and(|(_, id)| self.downloads.remove(&id).is_some())
    }
}

impl Download {
    /// Bytes a second, once that can be said.
    fn rate(&self, now: Instant) -> Option<u64> {
        let age = now.saturating_duration_since(self.began);
        (age >= TRIAL).then(|| self.sent.load(Ordering::Relaxed) / age.as_secs().max(1))
    }
}

impl Place {
    /// Counts what was sent. Whether the place is still there.
    pub(crate) fn sent(&self, bytes: u64) -> bool {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.downloads.running().downloads.contains_key(&self.id)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.downloads.running().downloads.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(last: u8) -> Holder {
        Holder::Site([192, 0, 2, last].into())
    }

    #[test]
    fn the_slowest_download_makes_room_and_a_fast_one_does_not() {
        let (downloads, now) = (Downloads::new(3, 2), Instant::now());
        let (fast, slow) = (downloads.begin(site(1), now).unwrap(), downloads.begin(site(1), now).unwrap());
        assert!(downloads.begin(site(1), now).is_none(), "neither has shown how fast it is");
        let later = now + Duration::from_secs(10);
        assert!(fast.sent(10 * SLOW) && slow.sent(9 * SLOW));
        let new = downloads.begin(site(1), later).unwrap();
        assert!(fast.sent(0) && !slow.sent(1));
        assert!(downloads.begin(site(1), later).is_none());
        let _other = downloads.begin(site(2), later).unwrap();
        assert!(downloads.begin(site(3), later).is_none(), "all three are fast or new");
        drop((fast, slow, new));
        assert!(downloads.begin(site(3), later).is_some());
    }
}
