//! Who may read the status socket at the same time. Any user may, so no user takes all places, and root,
//! who installs and upgrades, has places of its own. Pure, but for the count that readers share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Readers of all users but root.
const MAX_OTHERS: usize = 32;

/// Readers of one user.
const MAX_PER_USER: usize = 8;

/// Readers of root.
const MAX_ROOT: usize = 16;

const ROOT: u32 = 0;

/// The places, by user.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Mutex<BTreeMap<u32, usize>>>);

/// A place, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    user: u32,
}

impl Seats {
    /// A place for this user, if there is one.
    pub(super) fn take(&self, user: u32) -> Option<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&user).copied().unwrap_or_default();
        let others: usize = taken.iter().filter(|(user, _)| **user != ROOT).map(|(_, count)| count).sum();
        let free = if user == ROOT { own < MAX_ROOT } else { own < MAX_PER_USER && others < MAX_OTHERS };
        free.then(|| {
            taken.insert(user, own.saturating_add(1));
            Seat { seats: self.clone(), user }
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.user) {
            *count = count.saturating_sub(1);
        }
        taken.retain(|_, count| *count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(seats: &Seats, user: u32, count: usize) -> Vec<Seat> {
        (0..count).filter_map(|_| seats.take(user)).collect()
    }

    #[test]
    fn no_user_takes_all_places_and_nobody_takes_those_of_root() {
        let seats = Seats::default();
        let one = take(&seats, 1000, 100);
        assert_eq!(one.len(), MAX_PER_USER);
        let others: Vec<_> = (1001..1100).flat_map(|user| take(&seats, user, 100)).collect();
        assert_eq!(one.len() + others.len(), MAX_OTHERS);
        assert_eq!(take(&seats, ROOT, 100).len(), MAX_ROOT);
        drop(one);
        assert_eq!(take(&seats, 2000, 1).len(), 1, "a place that is given up is free");
        assert!(seats.0.lock().unwrap().len() < 100, "users without a reader are forgotten");
    }
}
