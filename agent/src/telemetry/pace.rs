//! How often something that changes all the time is told: each pause is twice as long as the one
//! before, until there has been quiet for as long again. Pure, but for the clock's first reading.

use std::time::Duration;

use tokio::time::Instant;

/// When the next change may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    pauses: (Duration, Duration),
    last: Option<(Instant, Duration)>,
}

impl Pace {
    /// With the first and the longest pause.
    pub(crate) fn new(pauses: (Duration, Duration)) -> Self {
        Self { pauses, last: None }
    }

    /// After a change that was told now.
    #[must_use]
    pub(crate) fn told(self, now: Instant) -> Self {
        let (first, longest) = self.pauses;
        let pause = match self.last {
            Some((last, pause)) if now < last + pause * 2 => (pause * 2).min(longest),
            _ => first,
        };
        Self { last: Some((now, pause)), ..self }
    }

    /// Before this nothing is told.
    pub(crate) fn next(self) -> Instant {
        self.last.map_or_else(Instant::now, |(last, pause)| last + pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_without_end_is_told_ever_more_seldom_and_after_a_quiet_time_soon_again() {
        let began = Instant::now();
        let mut pace = Pace::new((Duration::from_secs(5), Duration::from_secs(60)));
        let mut pauses = vec![];
        let mut now = began;
        for _ in 0..6 {
            pace = pace.told(now);
            pauses.push((pace.next() - now).as_secs());
            now = pace.next();
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        now += Duration::from_secs(60);
        assert_eq!((pace.told(now).next() - now).as_secs(), 5);
    }
}
