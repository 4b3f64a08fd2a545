//! How much memory the answers that peers have not taken yet may hold, in all and per holder.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::holder::Holder;

/// Who has charged how much.
pub(crate) struct Budget {
    total: u64,
    known: u64,
    strangers: u64,
    charged: Mutex<Charged>,
}

#[derive(Default)]
struct Charged {
    all: u64,
    holders: HashMap<Holder, u64>,
}

/// A part of the budget, until it is dropped.
pub(crate) struct Charge {
    budget: Arc<Budget>,
    holder: Holder,
    amount: u64,
}

impl Budget {
    /// So many bytes in all, for each organisation or node, and for each address without an accepted token.
    pub(crate) fn new(total: u64, known: u64, strangers: u64) -> Arc<Self> {
        Arc::new(Self { total, known, strangers, charged: Mutex::default() })
    }

    /// Whether `holder` may have more.
    pub(crate) fn is_open_to(&self, holder: &Holder) -> bool {
        self.charged().holders.get(holder).is_none_or(|held| *held < self.share(holder))
    }

    fn share(&self, holder: &Holder) -> u64 {
        match holder {
            Holder::Organisation(_) | Holder::Node(_) => self.known,
            Holder::Site(_) | Holder::Proxy => self.strangers,
        }
    }

    /// Charges `holder` with `amount`, or with nothing when that is too much. Who holds nothing yet
    /// gets one answer of any size.
    pub(crate) fn charge(self: &Arc<Self>, holder: Holder, amount: u64) -> Option<Charge> {
        let mut charged = self.charged();
        let held = charged.holders.get(&holder).copied().unwrap_or(0);
        let fits = |held: u64, limit| held == 0 || held.saturating_add(amount) <= limit;
        if !fits(held, self.share(&holder)) || !fits(charged.all, self.total) {
            return None;
        }
        charged.all += amount;
        *charged.holders.entry(holder.clone()).or_default() += amount;
        Some(Charge { budget: self.clone(), holder, amount })
    }

    fn charged(&self) -> MutexGuard<'_, Charged> {
        self.charged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut charged = self.budget.charged();
        charged.all -= self.amount;
        if let Some(held) = charged.holders.get_mut(&self.holder) {
            *held -= self.amount;
            if *held == 0 {
                charged.holders.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(last: u8) -> Holder {
        Holder::Site([192, 0, 2, last].into())
    }

    #[test]
    fn a_holder_has_a_share_and_all_have_a_sum() {
        let budget = Budget::new(25, 20, 10);
        let first = budget.charge(site(1), 9).unwrap();
        assert!(budget.charge(site(1), 2).is_none());
        let _others = (budget.charge(site(2), 9).unwrap(), budget.charge(site(3), 7).unwrap());
        assert!(budget.charge(site(4), 1).is_none(), "nothing is left of the sum");
        drop(first);
        let _large = budget.charge(site(4), 9).unwrap();
        assert_eq!(budget.charged().holders.len(), 3);
    }

    #[test]
    fn one_answer_may_be_larger_than_the_share() {
        let budget = Budget::new(100, 20, 10);
        let large = budget.charge(site(1), 50).unwrap();
        assert!(budget.charge(site(1), 1).is_none());
        drop(large);
        assert!(budget.charged().holders.is_empty());
    }
}
