//! What a connection is doing, and until when it may (pure).

use std::time::{Duration, Instant};

/// How patient the listener is with a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For TLS's handshake.
    pub(crate) handshake: Duration,
    /// For the first request, and for the head of each.
    pub(crate) head: Duration,
    /// For the next request. Longer than a proxy keeps its own connections, or it would send one
    /// into a connection that closes.
    pub(crate) idle: Duration,
    /// For taking the next 16 KiB of an answer.
    pub(crate) stall: Duration,
    /// For ending a connection without a request when the controller stops.
    pub(crate) farewell: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            handshake: secs(10),
            head: secs(10),
            idle: secs(90),
            stall: secs(30),
            farewell: Duration::from_millis(200),
        }
    }
}

/// A connection between its handshake and its end or upgrade.
#[derive(Debug)]
pub(super) struct Activity {
    /// Requests that began and are not fully answered.
    requests: u32,
    /// Those of them whose answer is on its way.
    answers: u32,
    /// HTTP/2 says more than requests, so its bytes begin none.
    multiplexed: bool,
    /// A head is under way, or the first is waited for.
    head: bool,
    heard: bool,
    stopping: bool,
    /// The last event that counts for the deadline.
    since: Instant,
}

impl Activity {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            requests: 0,
            answers: 0,
            multiplexed: false,
            head: true,
            heard: false,
            stopping: false,
            since: now,
        }
    }

    /// The handshake is over, and the first request may begin.
    pub(super) fn shaken(&mut self, now: Instant) {
        self.since = now;
    }

    /// Bytes came. Whether they are the first.
    pub(super) fn heard(&mut self, now: Instant) -> bool {
        if self.requests == 0 && !self.head && !self.multiplexed {
            (self.head, self.since) = (true, now);
        }
        !std::mem::replace(&mut self.heard, true)
    }

    /// A head is complete. Whether it is the only request.
    pub(super) fn began(&mut self, multiplexed: bool) -> bool {
        self.multiplexed |= multiplexed;
        self.head = false;
        self.requests += 1;
        self.requests == 1
    }

    /// An answer begins, or a piece of one was taken.
    pub(super) fn answering(&mut self, is_new: bool, now: Instant) {
        self.answers += u32::from(is_new);
        self.since = now;
    }

    /// A request is over. Whether it was the only one.
    pub(super) fn ended(&mut self, answered: bool, now: Instant) -> bool {
        self.answers -= u32::from(answered);
        self.requests -= 1;
        self.since = now;
        self.requests == 0
    }

    pub(super) fn stop(&mut self, now: Instant) {
        (self.stopping, self.since) = (true, now);
    }

    /// When the connection is closed unless something happens before.
    pub(super) fn deadline(&self, patience: &Patience) -> Option<Instant> {
        let patience = match self {
            Self { answers: 1.., .. } => patience.stall,
            Self { requests: 1.., .. } => return None,
            Self { stopping: true, .. } => patience.farewell,
            Self { head: true, .. } => patience.head,
            _ => patience.idle,
        };
        Some(self.since + patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        handshake: Duration::from_secs(1),
        head: Duration::from_secs(10),
        idle: Duration::from_secs(90),
        stall: Duration::from_secs(30),
        farewell: Duration::from_secs(1),
    };

    fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_head_has_its_time_from_its_first_byte_and_a_quiet_connection_has_longer() {
        let begin = Instant::now();
        let mut activity = Activity::new(begin);
        activity.heard(begin + secs(5));
        assert_eq!(activity.deadline(&PATIENCE), Some(begin + secs(10)), "the first one's begins at once");
        assert!(activity.began(false));
        assert_eq!(activity.deadline(&PATIENCE), None, "the handler has the time that it takes");
        activity.answering(true, begin + secs(6));
        assert_eq!(activity.deadline(&PATIENCE), Some(begin + secs(36)));
        activity.answering(false, begin + secs(8));
        assert_eq!(activity.deadline(&PATIENCE), Some(begin + secs(38)));
        assert!(activity.ended(true, begin + secs(9)));
        assert_eq!(activity.deadline(&PATIENCE), Some(begin + secs(99)));
        activity.heard(begin + secs(50));
        activity.heard(begin + secs(55));
        assert_eq!(activity.deadline(&PATIENCE), Some(begin + secs(60)));
    }

    #[test]
    fn the_pings_of_http2_are_no_request() {
        let begin = Instant::now();
        let mut activity = Activity::new(begin);
        assert!(activity.began(true) && !activity.began(true));
        assert!(!activity.ended(false, begin) && activity.ended(false, begin));
        activity.heard(begin + secs(80));
        assert_eq!(activity.deadline(&PATIENCE), Some(begin + secs(90)));
    }

    #[test]
    fn a_stop_waits_for_requests_and_for_nothing_else() {
        let begin = Instant::now();
        let mut activity = Activity::new(begin);
        activity.stop(begin);
        assert_eq!(activity.deadline(&PATIENCE), Some(begin + secs(1)));
        activity.began(false);
        assert_eq!(activity.deadline(&PATIENCE), None);
        activity.ended(false, begin + secs(4));
        assert_eq!(activity.deadline(&PATIENCE), Some(begin + secs(5)));
    }
}
