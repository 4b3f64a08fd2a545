//! How many sockets and files this process may have open, and how many of them are for whom. The soft limit
//! of 1,024 that most systems begin with is for programs that use `select`; this one does not, so it takes
//! all that the hard limit allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the controller has open beside all connections: the database, above all.
const OWN: u64 = 128;

/// The most connections beside workers' sockets that a controller ever has.
const MAX_CONNECTIONS: u64 = 4096;

/// Raises the soft limit to the hard one and says what it is then; `None` is no limit.
pub(crate) fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            current
        }
    }
}

/// How many connections there may be beside workers' sockets: a quarter of `limit`, so that the
/// rest is the workers'.
pub(crate) fn connections(limit: Option<u64>) -> u64 {
    limit.map_or(MAX_CONNECTIONS, |limit| (limit / 4).clamp(32, MAX_CONNECTIONS))
}

/// How many workers more than `limit` allows a fleet of `fleet` has.
pub(crate) fn missing(limit: Option<u64>, fleet: u64) -> u64 {
    limit.map_or(0, |it| fleet.saturating_add(OWN + connections(limit)).saturating_sub(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_hard_one_afterwards() {
        let raised = raise_limit();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!((raised, current), (maximum, maximum));
    }

    #[test]
    fn a_fleet_needs_a_descriptor_for_each_worker_and_some_more() {
        assert_eq!(missing(None, u64::MAX), 0);
        assert_eq!(missing(Some(1024), 640), 0);
        assert_eq!(missing(Some(1024), 10_000), 10_000 - 640);
    }

    #[test]
    fn connections_leave_the_workers_theirs() {
        assert_eq!([Some(300), Some(1024), Some(524_288), None].map(connections), [75, 256, 4096, 4096]);
    }
}
