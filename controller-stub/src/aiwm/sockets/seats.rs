//! How many Socket.IO sessions may be open without an accepted token, in all and from one site. Those with
//! one are limited by what their token speaks for.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::listener::holder::site;

/// A whole site may come back behind one address at once.
const MAX_WAITING: usize = 2048;
const MAX_WAITING_OF_SITE: usize = 512;

#[derive(Clone, Default)]
pub(super) struct Seats(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A session's place until this is dropped.
pub(super) struct Seat {
    seats: Seats,
    site: IpAddr,
}

impl Seats {
    /// A place for a session from this address, unless there are too many.
    pub(super) fn take(&self, address: IpAddr) -> Option<Seat> {
        let taken = self.table();
        let own = taken.get(&site(address)).copied().unwrap_or_default();
        let room = own < MAX_WAITING_OF_SITE && taken.values().sum::<usize>() < MAX_WAITING;
        drop(taken);
        room.then(|| self.hold(address))
    }

    /// A place for a session that is there already, however many there are.
    pub(super) fn hold(&self, address: IpAddr) -> Seat {
        let site = site(address);
        *self.table().entry(site).or_default() += 1;
        Seat { seats: self.clone(), site }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.table();
        if let Some(count) = taken.get_mut(&self.site) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.site);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_site_takes_the_places_of_another_and_who_goes_makes_room() {
        let seats = Seats::default();
        let at = |number: u8| IpAddr::from([192, 0, 2, number]);
        let fill = |address| std::iter::from_fn(|| seats.take(address)).collect::<Vec<_>>();
        let first = fill(at(1));
        assert_eq!(first.len(), MAX_WAITING_OF_SITE);
        let others: Vec<_> = (2..10).flat_map(|number| fill(at(number))).collect();
        assert_eq!(first.len() + others.len(), MAX_WAITING);
        assert!(seats.take(at(99)).is_none());
        drop(first);
        assert!(seats.take(at(1)).is_some());
        drop(others);
        assert!(seats.0.lock().unwrap().is_empty());
    }
}
