//! What NOTI's answer means for an event and for delivery as a whole. Pure: how long to wait is
//! `retry`'s to say.

use std::time::Duration;

use aio_protocol::{retry_after, time::Timestamp};

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// NOTI answered.
    Status { code: u16, retry_after: Option<String> },
    /// It did not in time.
    TimedOut,
    /// The connection could not be made, or broke.
    Broken(String),
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// NOTI has the event.
    Delivered,
    /// NOTI may take it another time.
    Retry(Retry),
    /// NOTI will never take this event, and says so of no other.
    Dead,
    /// NOTI wants no more events at all.
    Gone,
}

/// How to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retry {
    /// Only a person can cure it: no use in trying often.
    pub slow: bool,
    /// NOTI asked to be left alone for so long.
    pub hold: Option<Duration>,
    /// A person should know.
    pub alarm: Option<Alarm>,
}

/// What a person should look at. Raised once, until an event is delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alarm {
    /// NOTI answers with redirects, which are not followed.
    Redirected,
    /// NOTI refuses this controller, or is not at its address.
    Refused,
    /// NOTI is gone for good.
    Gone,
}

/// What an attempt says of NOTI's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    Bad,
    /// It was asked at the wrong time.
    Unknown,
}

/// An answer that takes longer is a bad sign, whatever it says.
pub(super) const SLOW: Duration = Duration::from_secs(2);

/// However long NOTI asks to be left alone, it is asked again after this.
pub(super) const LONGEST_HOLD: Duration = Duration::from_secs(3600);

const RETRY: Retry = Retry { slow: false, hold: None, alarm: None };

/// Judges an answer that came at `now`.
pub(super) fn judge(answer: &Answer, now: Timestamp) -> Verdict {
    let Answer::Status { code, retry_after } = answer else { return Verdict::Retry(RETRY) };
    match code {
        200..=299 => Verdict::Delivered,
        300..=399 => Verdict::Retry(Retry { alarm: Some(Alarm::Redirected), ..RETRY }),
        400 | 413 | 415 | 422 => Verdict::Dead,
        410 => Verdict::Gone,
        408 | 425 => Verdict::Retry(RETRY),
        429 | 503 => {
            let hold = retry_after.as_deref().and_then(|text| retry_after::delay(text, now));
            let hold = hold.map(|asked| asked.min(LONGEST_HOLD));
            Verdict::Retry(Retry { hold, ..RETRY })
        }
        // 401, 403, 404, and what else says that this controller or its address is wrong: the event is not.
        400..=499 => Verdict::Retry(Retry { slow: true, alarm: Some(Alarm::Refused), ..RETRY }),
        _ => Verdict::Retry(RETRY),
    }
}

/// What `answer`, which took `elapsed`, says of NOTI's health.
pub(super) fn health(verdict: Verdict, elapsed: Duration) -> Health {
    match verdict {
        _ if elapsed >= SLOW => Health::Bad,
        Verdict::Delivered | Verdict::Dead => Health::Good,
        Verdict::Retry(Retry { hold: Some(_), .. }) | Verdict::Gone => Health::Unknown,
        Verdict::Retry(_) => Health::Bad,
    }
}

impl Answer {
    /// Why the event is not delivered, as a label of few values.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::Broken(_) => "unreachable",
            Self::Status { code, .. } => match code {
                300..=399 => "redirect",
                400 | 413 | 415 | 422 => "rejected",
                410 => "gone",
                429 | 503 => "throttled",
                408 | 425 => "timeout",
                400..=499 => "refused",
                _ => "server_error",
            },
        }
    }

    /// What `receiver` answered.
    pub(crate) fn in_words(&self, receiver: &str) -> String {
        match self {
            Self::Status { code, .. } => format!("{receiver} answered {code}"),
            Self::TimedOut => format!("{receiver} did not answer in time"),
            Self::Broken(why) => format!("{receiver} did not answer: {why}"),
        }
    }
}

impl Alarm {
    pub(super) const ALL: [Self; 3] = [Self::Redirected, Self::Refused, Self::Gone];

    /// Its name in logs and metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Redirected => "noti_redirects",
            Self::Refused => "noti_refuses",
            Self::Gone => "noti_gone",
        }
    }

    /// What a person should do.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::Redirected => {
                "redirects are not followed: set NOTI_SERVICE_URL to the address that NOTI redirects to"
            }
            Self::Refused => "check NOTI_SERVICE_URL, NOTI_SERVICE_TOKEN and NOTI_WEBHOOK_SECRET",
            Self::Gone => {
                "delivery is stopped: correct NOTI_SERVICE_URL and restart, or POST /delivery/resume"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: &str = "2025-12-11T12:00:00Z";

    fn answered(code: u16, retry_after: Option<&str>) -> Verdict {
        let answer = Answer::Status { code, retry_after: retry_after.map(str::to_owned) };
        judge(&answer, NOW.parse().unwrap())
    }

    #[test]
    fn every_status_has_the_consequence_of_the_table() {
        for code in [200, 201, 202, 204, 299] {
            assert_eq!(answered(code, None), Verdict::Delivered, "{code}");
        }
        for code in [400, 413, 415, 422] {
            assert_eq!(answered(code, None), Verdict::Dead, "{code}");
        }
        for code in [301, 302, 303, 307, 308] {
            let expected = Retry { alarm: Some(Alarm::Redirected), ..RETRY };
            assert_eq!(answered(code, None), Verdict::Retry(expected), "{code}");
        }
        for code in [401, 403, 404, 405, 409, 451] {
            let expected = Retry { slow: true, alarm: Some(Alarm::Refused), hold: None };
            assert_eq!(answered(code, None), Verdict::Retry(expected), "{code}");
        }
        for code in [100, 408, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(answered(code, None), Verdict::Retry(RETRY), "{code}");
        }
        assert_eq!(answered(410, None), Verdict::Gone);
        for lost in [Answer::TimedOut, Answer::Broken("connection reset".into())] {
            assert_eq!(judge(&lost, NOW.parse().unwrap()), Verdict::Retry(RETRY));
        }
    }

    #[test]
    fn retry_after_is_obeyed_in_seconds_and_as_a_date_up_to_an_hour() {
        let hold = |code, text| match answered(code, Some(text)) {
            Verdict::Retry(Retry { hold, .. }) => hold.map(|it| it.as_secs()),
            other => panic!("{other:?}"),
        };
        for code in [429, 503] {
            assert_eq!(hold(code, "7"), Some(7));
            assert_eq!(hold(code, "0"), Some(0));
            assert_eq!(hold(code, "Thu, 11 Dec 2025 12:00:30 GMT"), Some(30));
            assert_eq!(hold(code, "Thursday, 11-Dec-25 12:00:30 GMT"), Some(30), "RFC 850");
            assert_eq!(hold(code, "Thu Dec 11 12:00:30 2025"), Some(30), "asctime");
            assert_eq!(
                hold(code, "Mon Jan  5 12:00:30 2026"),
                Some(3600),
                "asctime, with a blank for a digit"
            );
            assert_eq!(hold(code, "Thu, 11 Dec 2025 11:00:00 GMT"), Some(0), "one that has passed");
            assert_eq!(hold(code, "99999999999999999999999999"), Some(3600));
            assert_eq!(hold(code, "999999999"), Some(3600));
            for unreadable in ["soon", "", "-1", "+7", "1.5", "7 s"] {
                assert_eq!(hold(code, unreadable), None, "{unreadable}");
            }
        }
        assert_eq!(hold(500, "7"), None, "only 429 and 503 mean all of delivery by it");
    }

    #[test]
    fn health_is_what_the_answer_says_unless_it_came_late() {
        let quick = Duration::from_millis(10);
        assert_eq!(health(Verdict::Delivered, quick), Health::Good);
        assert_eq!(health(Verdict::Delivered, SLOW), Health::Bad);
        assert_eq!(health(Verdict::Dead, quick), Health::Good);
        assert_eq!(health(answered(500, None), quick), Health::Bad);
        assert_eq!(health(answered(429, Some("1")), quick), Health::Unknown);
        assert_eq!(health(answered(429, None), quick), Health::Bad);
    }

    proptest! {
        #[test]
        fn no_answer_but_a_2xx_counts_as_delivered(code in 0_u16.., retry_after in proptest::option::of(".{0,40}")) {
            let verdict = answered(code, retry_after.as_deref());
            prop_assert_eq!(verdict == Verdict::Delivered, (200..300).contains(&code));
        }
    }
}
