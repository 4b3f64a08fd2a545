//! Counts what repeats, so that the log has the first, and then one line at every doubling.

/// A count of what repeats.
#[derive(Debug, Default)]
pub(crate) struct Tally(u64);

impl Tally {
    /// Counts one more; the count, if it is worth a line.
    pub(crate) fn count(&mut self) -> Option<u64> {
        self.0 = self.0.saturating_add(1);
        self.0.is_power_of_two().then_some(self.0)
    }

    /// How many there were since it was last cleared.
    pub(crate) fn total(&self) -> u64 {
        self.0
    }

    /// The count, which starts anew.
    pub(crate) fn clear(&mut self) -> u64 {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_worth_a_line_at_every_doubling() {
        let mut tally = Tally::default();
        let lines: Vec<_> = (0..9).filter_map(|_| tally.count()).collect();
        assert_eq!(lines, [1, 2, 4, 8]);
        assert_eq!((tally.clear(), tally.count()), (9, Some(1)));
    }
}
