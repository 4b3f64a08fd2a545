//! The routes that fail at present, so that the log tells the first failure, every doubling, and
//! the recovery.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use axum::http::Method;

/// The routes that fail at present, and how often they did in a row.
#[derive(Default)]
pub(crate) struct Failures(Mutex<HashMap<(Method, String), u64>>);

impl Failures {
    /// How many failures in a row there were, where that is worth a line.
    pub(crate) fn count(&self, method: Method, route: &str, failed: bool) -> Option<u64> {
        let mut failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !failed {
            return if failing.is_empty() { None } else { failing.remove(&(method, route.to_owned())) };
        }
        let count = failing.entry((method, route.to_owned())).or_default();
        *count += 1;
        count.is_power_of_two().then_some(*count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_at_each_doubling_and_when_they_end() {
        let failures = Failures::default();
        let told: Vec<_> = (0..10).filter_map(|_| failures.count(Method::GET, "/nodes", true)).collect();
        assert_eq!(told, [1, 2, 4, 8]);
        assert_eq!(failures.count(Method::POST, "/nodes", false), None);
        assert_eq!(failures.count(Method::GET, "/nodes", false), Some(10));
        assert_eq!(failures.count(Method::GET, "/nodes", false), None);
    }
}
