//! Each organisation's share of what reads lists: one that asks for many waits for itself, and no
//! other waits for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use aio_protocol::ids::OwnerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Organisations that read nothing are evicted once so many are known.
const EVICT_AT: usize = 1024;

/// How many lists an organisation reads at the same time. Clones share it.
#[derive(Clone)]
pub(super) struct Shares {
    each: usize,
    readers: Arc<Mutex<HashMap<OwnerId, Weak<Semaphore>>>>,
}

/// A place among an organisation's readers, until it is dropped.
pub(super) struct Share {
    _permit: Option<OwnedSemaphorePermit>,
    _readers: Arc<Semaphore>,
}

impl Shares {
    pub(super) fn new(each: u32) -> Self {
        Self { each: usize::try_from(each.max(1)).unwrap_or(1), readers: Arc::default() }
    }

    /// Waits for a place among the organisation's readers.
    pub(super) async fn take(&self, organisation: &OwnerId) -> Share {
        let readers = self.readers_of(organisation);
        // Never closed, so there is always a permit in the end.
        Share { _permit: readers.clone().acquire_owned().await.ok(), _readers: readers }
    }

    fn readers_of(&self, organisation: &OwnerId) -> Arc<Semaphore> {
        let mut known = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(readers) = known.get(organisation).and_then(Weak::upgrade) {
            return readers;
        }
        if known.len() >= EVICT_AT {
            known.retain(|_, readers| readers.strong_count() > 0);
        }
        let readers = Arc::new(Semaphore::new(self.each));
        known.insert(organisation.clone(), Arc::downgrade(&readers));
        readers
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn org(name: &str) -> OwnerId {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn an_organisation_waits_for_itself_alone() {
        let shares = Shares::new(2);
        let (first, _second) = (shares.take(&org("a")).await, shares.take(&org("a")).await);
        assert!(shares.take(&org("a")).now_or_never().is_none(), "a third reader waits");
        assert!(shares.take(&org("b")).now_or_never().is_some(), "and another organisation does not");
        drop(first);
        assert!(shares.take(&org("a")).now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_reads_nothing_is_evicted() {
        let shares = Shares::new(1);
        for number in 0..3 * EVICT_AT {
            drop(shares.take(&org(&format!("org-{number}"))).await);
        }
        assert!(shares.readers.lock().unwrap().len() <= EVICT_AT);
    }
}
