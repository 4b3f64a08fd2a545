//! The session's state in words, for people: one sentence each, with what an operator must do if it
//! is theirs to do. Pure.

use std::time::Instant;

use aio_protocol::{error_code::ErrorCode, snapshot::SessionState, time::Timestamp};

use super::{machine::State, setback::Setback};

/// A state in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// In a word.
    pub state: SessionState,
    /// In a sentence.
    pub detail: String,
    /// A code, if something is wrong.
    pub code: Option<ErrorCode>,
}

/// The state in words. `now` is the same moment on both clocks.
pub fn describe(state: &State, controller: &str, now: (Instant, Timestamp)) -> Words {
    let after = state.after();
    // A try does not hide what it comes after: where nobody answers, most of the time is spent trying.
    let before =
        after.map(|after| format!("; before: {}.{}", after.message(), cure(after))).unwrap_or_default();
    let (word, detail) = match state {
        State::Starting { .. } => (SessionState::Waiting, "reading what this machine is made of".to_owned()),
        State::Connecting { .. } => (SessionState::Connecting, format!("connecting to {controller}{before}")),
        State::Registering { .. } => {
            (SessionState::Registering, format!("connected to {controller}, not yet welcomed{before}"))
        }
        State::Online(_) => (SessionState::Online, format!("online at {controller}")),
        State::Stopping { .. } | State::Stopped => (SessionState::Stopping, "stopping".to_owned()),
        State::Waiting { until, after } => {
            let (now, wall) = now;
            let next = clock(wall.plus(until.saturating_duration_since(now)));
            (SessionState::Waiting, format!("{}; next try at {next}.{}", after.message(), cure(after)))
        }
    };
    Words { state: word, detail, code: after.and_then(Setback::code) }
}

fn cure(after: &Setback) -> String {
    after.cure().map(|cure| format!(" {cure}")).unwrap_or_default()
}

/// To the second: nobody needs more of a next try.
fn clock(time: Timestamp) -> String {
    let text = time.to_string();
    text.split('.').next().map_or_else(|| text.clone(), |seconds| format!("{seconds}Z"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_refusal_says_what_an_operator_must_do_and_when_the_next_try_is() {
        let now = Instant::now();
        let after = Setback::new(ErrorCode::TokenRevoked, "the controller no longer accepts the token");
        let state = State::Waiting { until: now + Duration::from_secs(30), after };
        let words = describe(&state, "wss://x/", (now, Timestamp::from_millis(1_765_454_400_500)));
        assert_eq!(
            words.detail,
            "the controller no longer accepts the token; next try at 2025-12-11T12:00:30Z. \
             Make a new token on the controller."
        );
        assert_eq!((words.state, words.code), (SessionState::Waiting, Some(ErrorCode::TokenRevoked)));
    }

    #[test]
    fn what_time_cures_asks_nothing_of_anybody() {
        let now = Instant::now();
        let after = Setback::new(ErrorCode::ControllerUnreachable, "cannot reach ws://x/: refused");
        let words =
            describe(&State::Waiting { until: now, after }, "ws://x/", (now, Timestamp::from_millis(0)));
        assert_eq!(words.detail, "cannot reach ws://x/: refused; next try at 1970-01-01T00:00:00Z.");
    }

    #[test]
    fn a_try_after_a_setback_says_what_happened_before() {
        let now = (Instant::now(), Timestamp::from_millis(0));
        let after = Some(Setback::new(ErrorCode::ControllerUnreachable, "the controller answered no ping"));
        let connecting = |after| describe(&State::Connecting { until: now.0, after }, "wss://x/", now);
        let words = connecting(after.clone());
        assert_eq!(words.detail, "connecting to wss://x/; before: the controller answered no ping.");
        assert_eq!(words.code, Some(ErrorCode::ControllerUnreachable));
        let state = State::Registering { until: now.0, registered: true, after };
        assert_eq!(describe(&state, "wss://x/", now).code, Some(ErrorCode::ControllerUnreachable));
        let first = connecting(None);
        assert_eq!((first.detail.as_str(), first.code), ("connecting to wss://x/", None));
    }
}
