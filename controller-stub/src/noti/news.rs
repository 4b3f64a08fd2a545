//! Wakes the dashboards of an organisation when an event of theirs has been kept. It carries no
//! event: who is woken reads the inbox, which is the one queue there is.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use aio_protocol::ids::OwnerId;
use tokio::sync::watch;

#[derive(Default)]
pub(crate) struct News(Mutex<HashMap<OwnerId, watch::Sender<()>>>);

impl News {
    /// Changes whenever an event of this organisation has been kept.
    pub(super) fn of(&self, org: &OwnerId) -> watch::Receiver<()> {
        let mut organisations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        organisations.entry(org.clone()).or_insert_with(|| watch::channel(()).0).subscribe()
    }

    /// Events have been kept, nobody knows whose.
    pub(super) fn tell_all(&self) {
        let mut organisations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        organisations.retain(|_, sender| sender.send(()).is_ok());
    }

    /// An event of this organisation has been kept.
    pub(super) fn tell(&self, org: &OwnerId) {
        let mut organisations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let listened = organisations.get(org).map(|sender| sender.send(()).is_ok());
        if listened == Some(false) {
            organisations.remove(org);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_organisations_own_listeners_are_woken_and_nobody_is_kept_for_ever() {
        let (news, ours, theirs) =
            (News::default(), "ours".parse::<OwnerId>().unwrap(), "theirs".parse::<OwnerId>().unwrap());
        let (listener, other) = (news.of(&ours), news.of(&theirs));
        news.tell(&ours);
        assert!(listener.has_changed().unwrap() && !other.has_changed().unwrap());
        drop(listener);
        news.tell(&ours);
        assert_eq!(news.0.lock().unwrap().len(), 1);
    }
}
