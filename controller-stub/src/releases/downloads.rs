//! How many downloads run at once, in all and per holder. At a holder's limit its slowest makes room, if that
//! is slow: whoever drips keeps nobody out. At the common limit the slowest of the largest holder makes room
//! for a smaller one.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::listener::holder::Holder;

/// A download that is slower than this, in bytes a second, makes room.
const SLOW: u64 = 8 * 1024;

/// A download shows after this time how fast it is.
const TRIAL: Duration = Duration::from_secs(10);

/// So many pieces are read at once, however many downloads there are: those that begin at the same moment must
/// not take the processor from everybody else.
const READERS: usize = 4;

/// Every download that is on its way.
pub(crate) struct Downloads {
    total: usize,
    per_holder: usize,
    running: Mutex<Running>,
    readers: Arc<Semaphore>,
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
        let readers = Arc::new(Semaphore::new(READERS));
        Arc::new(Self { total, per_holder, running: Mutex::default(), readers })
    }

    /// A place, at the cost of a slow one if need be.
    pub(crate) fn begin(self: &Arc<Self>, holder: Holder, now: Instant) -> Option<Place> {
        let mut running = self.running();
        let of_holder = running.downloads.values().filter(|download| download.holder == holder).count();
        if of_holder >= self.per_holder && !running.evict(&holder, now, SLOW) {
            return None;
        }
        if running.downloads.len() >= self.total && !running.make_room(of_holder, now) {
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
    /// Ends one download of the largest holder: a slow one, or any if `fewer` and one more are
    /// still fewer than it has.
    fn make_room(&mut self, fewer: usize, now: Instant) -> bool {
        let mut sizes = HashMap::<_, usize>::new();
        for download in self.downloads.values() {
            *sizes.entry(&download.holder).or_default() += 1;
        }
        let Some((holder, size)) = sizes.into_iter().max_by_key(|(_, size)| *size) else { return false };
        let limit = if size > fewer + 1 { u64::MAX } else { SLOW };
        self.evict(&holder.clone(), now, limit)
    }

    /// Ends the slowest download of `holder` if it is slower than `limit`.
    fn evict(&mut self, holder: &Holder, now: Instant, limit: u64) -> bool {
        let of_holder = self.downloads.iter().filter(|(_, it)| it.holder == *holder);
        let slowest = of_holder.filter_map(|(id, it)| Some((it.rate(now)?, *id))).min();
        slowest.is_some_and(|(rate, id)| rate < limit && self.downloads.remove(&id).is_some())
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
    /// The right to read a piece, once it is this download's turn.
    pub(crate) fn turn(&self) -> impl Future<Output = Option<OwnedSemaphorePermit>> + Send + use<> {
        let readers = self.downloads.readers.clone();
        async { readers.acquire_owned().await.ok() }
    }

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
    fn the_slowest_of_a_holder_makes_room_if_it_is_slow() {
        let (downloads, now) = (Downloads::new(10, 2), Instant::now());
        let (fast, slow) = (downloads.begin(site(1), now).unwrap(), downloads.begin(site(1), now).unwrap());
        assert!(downloads.begin(site(1), now).is_none(), "neither has shown how fast it is");
        let later = now + TRIAL;
        assert!(fast.sent(TRIAL.as_secs() * SLOW) && slow.sent(TRIAL.as_secs() * SLOW - 1));
        let _new = downloads.begin(site(1), later).unwrap();
        assert!(fast.sent(0) && !slow.sent(1));
        assert!(downloads.begin(site(1), later).is_none());
        drop(fast);
        assert!(downloads.begin(site(1), later).is_some());
    }

    #[test]
    fn the_largest_holder_makes_room_for_a_smaller_one() {
        let (downloads, now) = (Downloads::new(4, 3), Instant::now());
        let large: Vec<_> = (0..3).map(|_| downloads.begin(site(1), now).unwrap()).collect();
        let _small = downloads.begin(site(2), now).unwrap();
        let later = now + TRIAL;
        for (place, share) in large.iter().zip([3, 2, 4]) {
            assert!(place.sent(share * TRIAL.as_secs() * SLOW));
        }
        let _third = downloads.begin(site(3), later).unwrap();
        assert!(large[0].sent(0) && !large[1].sent(0) && large[2].sent(0));
        assert!(downloads.begin(site(3), later).is_none(), "two are as many as the largest has");
    }
}
