//! A dashboard's stream: when to read the inbox, when to ping, when to give up. Pure. Missed events and new
//! ones are read in the same way, behind the last one that was sent, so there is no gap between the two.
//!
//! A ping follows every batch, and the next batch waits for its pong. So a dashboard that does not read costs
//! the memory of one batch, and the missing pong says for how long it has not read.

use std::time::{Duration, Instant};

use aio_protocol::wire::close;

/// Keeps proxies from closing a quiet connection, and finds half-open ones.
const PING: Duration = Duration::from_secs(20);

/// Shortest time between two reads of the inbox. In a storm of events a dashboard gets them in batches.
const SPACING: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stream {
    /// Of the last event that was sent.
    position: i64,
    /// Whether what was missed has been sent.
    live: bool,
    /// Whether there may be events behind the position.
    more: bool,
    /// The last ping's number.
    pings: u64,
    awaited: Option<Awaited>,
    next_look: Instant,
    next_ping: Instant,
    token_ends: Instant,
    patience: Duration,
}

/// A pong that has not come yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Awaited {
    since: Instant,
    behind_events: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// An event of this organisation has been kept.
    NewsCame,
    /// What was looked for has been sent: the last one's place, and whether there are more.
    Sent { last: Option<i64>, more: bool },
    /// The pong to the ping of this number.
    Ponged(u64),
    /// The deadline has come.
    Elapsed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Send a batch of what is behind this place, and say what was sent.
    Look {
        after: i64,
    },
    /// Say that events now come as they happen.
    TellLive,
    Ping(u64),
    Close {
        code: u16,
        reason: &'static str,
    },
}

impl Stream {
    /// A stream of what is behind `position`. A dashboard that has not read what was sent within
    /// `patience` cannot keep up, or is gone.
    pub(super) fn new(position: i64, token_ends: Instant, patience: Duration, now: Instant) -> Self {
        Self {
            position,
            live: false,
            more: true,
            pings: 0,
            awaited: None,
            next_look: now,
            next_ping: now + PING,
            token_ends,
            patience,
        }
    }

    /// When [`Input::Elapsed`] is due.
    pub(super) fn deadline(&self) -> Instant {
        let next = match self.awaited {
            Some(awaited) => awaited.since + self.patience,
            None if self.more => self.next_look,
            None => self.next_ping,
        };
        next.min(self.token_ends)
    }

    pub(super) fn step(self, input: Input, now: Instant) -> (Self, Vec<Effect>) {
        match input {
            Input::NewsCame => Self { more: true, ..self }.look(now),
            Input::Ponged(number) if number == self.pings => Self { awaited: None, ..self }.look(now),
            Input::Ponged(_) => (self, vec![]),
            Input::Sent { last, more } => self.sent(last, more, now),
            Input::Elapsed => self.elapsed(now),
        }
    }

    fn look(self, now: Instant) -> (Self, Vec<Effect>) {
        if self.more && self.awaited.is_none() && self.next_look <= now {
            let after = self.position;
            return (Self { more: false, ..self }, vec![Effect::Look { after }]);
        }
        (self, vec![])
    }

    fn sent(self, last: Option<i64>, more: bool, now: Instant) -> (Self, Vec<Effect>) {
        let mut effects = vec![];
        if !more && !self.live {
            effects.push(Effect::TellLive);
        }
        let stream = Self {
            position: last.unwrap_or(self.position),
            live: self.live || !more,
            // What came while it looked may be among what was sent, or not.
            more: self.more || more,
            next_look: now + SPACING,
            ..self
        };
        match last {
            Some(_) => {
                let (stream, ping) = stream.ping(true, now);
                effects.push(ping);
                (stream, effects)
            }
            None => (stream, effects),
        }
    }

    fn ping(self, behind_events: bool, now: Instant) -> (Self, Effect) {
        let pings = self.pings + 1;
        let awaited = Some(Awaited { since: now, behind_events });
        (Self { pings, awaited, next_ping: now + PING, ..self }, Effect::Ping(pings))
    }

    fn elapsed(self, now: Instant) -> (Self, Vec<Effect>) {
        if self.token_ends <= now {
            let reason = "TOKEN_EXPIRED: the token ended";
            return (self, vec![Effect::Close { code: close::TOKEN_ENDED, reason }]);
        }
        match self.awaited {
            Some(awaited) if awaited.since + self.patience <= now => {
                let (code, reason) = if awaited.behind_events {
                    (close::TOO_FAST, "RATE_LIMITED: events come faster than they are read")
                } else {
                    (close::SILENT, "no ping was answered")
                };
                (self, vec![Effect::Close { code, reason }])
            }
            Some(_) => (self, vec![]),
            None if self.next_ping <= now => {
                // Another controller on the same database may have kept something without telling this one.
                let (stream, ping) = Self { more: true, ..self }.ping(false, now);
                (stream, vec![ping])
            }
            None => self.look(now),
        }
    }
}

#[cfg(test)]
mod tests;
