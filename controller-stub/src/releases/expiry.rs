//! When the index of releases expires: for figures at once, and for people in time. Nodes take
//! nothing under an expired index, and it is renewed where the release key is, not here.

use std::time::Duration;

use aio_protocol::{release::index::ReleaseIndex, time::Timestamp};
use metrics::gauge;
use tokio_util::sync::CancellationToken;

use super::Releases;
use crate::clock;

/// So long before its end an index should be renewed.
pub(crate) const RENEWAL: Duration = Duration::from_secs(7 * 86_400);

/// Interval between looks at the index.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Interval between warnings.
const WARNING_INTERVAL: Duration = Duration::from_secs(86_400);

/// How an index stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Valid,
    Ending,
    Expired,
}

impl Standing {
    fn of(index: &ReleaseIndex, now: Timestamp) -> Self {
        match index.expires_at.since(now) {
            _ if index.expired(now) => Self::Expired,
            left if left <= RENEWAL => Self::Ending,
            _ => Self::Valid,
        }
    }
}

/// What was said last, and when.
#[derive(Debug, Default)]
struct Said(Option<(Standing, Timestamp)>);

impl Said {
    /// Whether to warn now: when it gets worse, and then once a day.
    fn warns(&mut self, standing: Standing, now: Timestamp) -> bool {
        if standing == Standing::Valid {
            self.0 = None;
            return false;
        }
        let due = match self.0 {
            Some((last, at)) => last != standing || now.since(at) >= WARNING_INTERVAL,
            None => true,
        };
        if due {
            self.0 = Some((standing, now));
        }
        due
    }
}

/// Looks at the index of the releases folder now and then, until `stop`.
pub(crate) async fn watch(releases: &Releases, stop: CancellationToken) {
    let (mut said, mut unreadable) = (Said::default(), false);
    let mut tick = tokio::time::interval(LOOK_INTERVAL);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let now = clock::now();
        let index = match releases.index().await {
            Ok(index) => index,
            Err(error) => {
                if !unreadable {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the index of releases cannot be read"
                    );
                }
                unreadable = true;
                continue;
            }
        };
        unreadable = false;
        let expires = index.as_ref().map_or(0, |index| index.expires_at.as_millis() / 1000);
        gauge!("aio_release_index_expires_seconds").set(expires as f64);
        let Some(index) = index else { continue };
        let standing = Standing::of(&index, now);
        if said.warns(standing, now) {
            let (serial, expires) = (index.serial, index.expires_at);
            if standing == Standing::Expired {
                tracing::warn!(serial, %expires, "the index of releases has expired, and nodes take no update: sign a new one");
            } else {
                tracing::warn!(serial, %expires, "the index of releases expires soon: sign a new one");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn an_index_that_ends_is_warned_of_a_week_before_and_once_a_day() {
        let day = Duration::from_secs(86_400);
        let start = Timestamp::from_millis(1_700_000_000_000);
        let index = ReleaseIndex {
            serial: 1,
            issued_at: start,
            expires_at: start.plus(day * 30),
            floor: None,
            revoked: BTreeSet::new(),
            keys: Vec::new(),
            releases: BTreeMap::new(),
        };
        let mut said = Said::default();
        let mut warned = Vec::new();
        for hour in 0..32 * 24 {
            let now = start.plus(Duration::from_secs(3600) * hour);
            let standing = Standing::of(&index, now);
            if said.warns(standing, now) {
                warned.push((hour / 24, standing));
            }
        }
        let days: Vec<_> = warned.iter().map(|it| it.0).collect();
        assert_eq!(days, [23, 24, 25, 26, 27, 28, 29, 30, 31]);
        assert!(warned.iter().all(|(day, standing)| (*standing == Standing::Expired) == (*day >= 30)));
    }
}
