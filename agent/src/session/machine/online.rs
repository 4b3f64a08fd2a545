//! A session that is welcomed: when heartbeats and metrics are due at the controller's pace, and
//! since when a ping waits for its pong. Pure.

use std::time::{Duration, Instant};

use aio_protocol::wire::RegisterAck;

use super::Effect;
use crate::session::backoff::Jitter;

/// No pace is faster or slower than these, whatever a controller says: the first would be a hot
/// loop, the second a lost node.
pub(super) const PACE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3600));

/// A deadline that is noticed so much too late was not missed by the other end: this process stood still.
const STANDSTILL: Duration = Duration::from_secs(5);

/// A session in which the worker was welcomed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Online {
    /// When.
    pub since: Instant,
    /// The last heartbeat's number; 0 before the first.
    pub seq: u64,
    beat_every: Duration,
    next_beat: Instant,
    metrics_every: Duration,
    next_metrics: Instant,
    /// Since when a ping has been waiting for a pong.
    unanswered: Option<Instant>,
}

impl Online {
    pub(super) fn welcomed(ack: &RegisterAck, phase: Jitter, now: Instant) -> Self {
        let (beat_every, metrics_every) = (pace(ack.heartbeat_interval), pace(ack.metrics_interval));
        Self {
            since: now,
            seq: 0,
            beat_every,
            next_beat: now + phase.of(beat_every),
            metrics_every,
            next_metrics: now + metrics_every,
            unanswered: None,
        }
    }

    /// When the next heartbeat is due.
    pub(super) fn next_beat(&self) -> Instant {
        self.next_beat
    }

    /// When something is due: a message, or the end of waiting for a pong.
    pub(super) fn deadline(&self, pong: Duration) -> Instant {
        let silence = self.unanswered.map(|since| since + pong);
        silence.into_iter().fold(self.next_beat.min(self.next_metrics), Instant::min)
    }

    /// As it goes on; nothing when no pong has come for as long as `pong`.
    pub(super) fn unless_silent(mut self, pong: Duration, now: Instant) -> Option<Self> {
        if self.unanswered.is_some_and(|since| since + pong + STANDSTILL < now) {
            // The pong may have come while nobody here was listening, and lie unread in the socket.
            self.unanswered = Some(now);
        }
        self.unanswered.is_none_or(|since| since + pong > now).then_some(self)
    }

    /// The controller has read the heartbeat of this number; nothing when none has it.
    pub(super) fn answered(self, seq: u64, now: Instant) -> Option<Self> {
        // A pong of an older heartbeat shows that the path lives: the younger ones get the full
        // time from now.
        let unanswered = self.unanswered.filter(|_| seq < self.seq).map(|_| now);
        (1..=self.seq).contains(&seq).then_some(Self { unanswered, ..self })
    }

    /// The machine has slept: whether the connection still lives is asked now.
    pub(super) fn woken(self, now: Instant) -> Self {
        Self { next_beat: now, unanswered: None, ..self }
    }

    /// Obeys another pace; what is already due sooner stays.
    pub(super) fn paced(self, ack: &RegisterAck, now: Instant) -> Self {
        let (beat_every, metrics_every) = (pace(ack.heartbeat_interval), pace(ack.metrics_interval));
        Self {
            beat_every,
            next_beat: self.next_beat.min(now + beat_every),
            metrics_every,
            next_metrics: self.next_metrics.min(now + metrics_every),
            ..self
        }
    }

    /// A heartbeat beside those that are due, and the details; before the first one, that will do.
    pub(super) fn send_now(self, now: Instant) -> (Self, Vec<Effect>) {
        if self.seq == 0 {
            return (self, vec![]);
        }
        let (online, beat) = self.send_beat(now);
        (online, vec![beat, Effect::SendMetrics])
    }

    fn send_beat(mut self, now: Instant) -> (Self, Effect) {
        self.seq += 1;
        self.unanswered = self.unanswered.or(Some(now));
        (self, Effect::SendBeat(self.seq))
    }

    pub(super) fn send_due(mut self, now: Instant) -> (Self, Vec<Effect>) {
        let mut effects = vec![];
        if self.next_beat <= now {
            self.next_beat = following(self.next_beat, self.beat_every, now);
            let (online, beat) = self.send_beat(now);
            self = online;
            effects.push(beat);
        }
        if self.next_metrics <= now {
            self.next_metrics = following(self.next_metrics, self.metrics_every, now);
            effects.push(Effect::SendMetrics);
        }
        (self, effects)
    }
}

/// The pace of so many milliseconds.
fn pace(millis: u64) -> Duration {
    Duration::from_millis(millis).clamp(PACE.0, PACE.1)
}

/// The next due time: in step with the last one, unless the machine slept through it. What was
/// missed is not made up for.
fn following(due: Instant, every: Duration, now: Instant) -> Instant {
    let next = due + every;
    if next > now { next } else { now + every }
}
