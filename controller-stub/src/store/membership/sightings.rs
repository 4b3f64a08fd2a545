//! Who is silent, by one's own clock: whose count of beats has stood still for a while that was watched
//! without a gap. So neither the database's clock nor an outage of it makes anybody dead. Pure.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Who does not beat for so long is dead.
const DEAD_AFTER: Duration = Duration::from_secs(15);

/// Who has not looked for longer begins to watch anew.
const LONGEST_GAP: Duration = Duration::from_secs(6);

/// When each controller was seen to beat last.
#[derive(Debug, Default)]
pub(in crate::store) struct Sightings {
    seen: HashMap<i64, (i64, Instant)>,
    looked_at: Option<Instant>,
}

impl Sightings {
    /// Takes note of everybody's count of beats, and says whose has stood still for too long, each with it.
    pub(in crate::store) fn look(&mut self, beats: &[(i64, i64)], now: Instant) -> Vec<(i64, i64)> {
        if self.looked_at.replace(now).is_some_and(|at| now - at > LONGEST_GAP) {
            self.seen.clear();
        }
        self.seen.retain(|number, _| beats.iter().any(|(other, _)| other == number));
        let silent = beats.iter().filter(|(number, count)| {
            let (known, since) = self.seen.entry(*number).or_insert((*count, now));
            if known != count {
                (*known, *since) = (*count, now);
            }
            now - *since >= DEAD_AFTER
        });
        silent.copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_does_not_beat_for_long_enough_is_silent_and_who_does_is_not() {
        let (mut sightings, start) = (Sightings::default(), Instant::now());
        for secs in 0..30 {
            let silent = sightings.look(&[(1, i64::from(secs)), (2, 7)], start + SECOND * secs);
            assert_eq!(silent, if secs >= 15 { vec![(2, 7)] } else { vec![] }, "{secs}");
        }
    }

    #[test]
    fn one_beat_is_a_whole_time_and_whoever_is_gone_is_forgotten() {
        let (mut sightings, start) = (Sightings::default(), Instant::now());
        for secs in 0..14 {
            assert_eq!(sightings.look(&[(2, 7)], start + SECOND * secs), []);
        }
        for secs in 14..29 {
            assert_eq!(sightings.look(&[(2, 8)], start + SECOND * secs), [], "{secs}");
        }
        assert_eq!(sightings.look(&[(2, 8)], start + SECOND * 29), [(2, 8)]);
        sightings.look(&[], start + SECOND * 30);
        assert_eq!(sightings.look(&[(2, 8)], start + SECOND * 31), []);
    }

    #[test]
    fn a_time_in_which_nobody_could_look_makes_nobody_dead() {
        let (mut sightings, start) = (Sightings::default(), Instant::now());
        sightings.look(&[(2, 7)], start);
        // The database was away for a minute, and this one is the first to reach it again.
        assert_eq!(sightings.look(&[(2, 7)], start + SECOND * 60), []);
        for secs in 61..75 {
            assert_eq!(sightings.look(&[(2, 7)], start + SECOND * secs), [], "{secs}");
        }
        assert_eq!(sightings.look(&[(2, 7)], start + SECOND * 75), [(2, 7)]);
    }
}
