//! What a `Retry-After` header asks for, in every form that HTTP allows (RFC 9110, 10.2.3 and 5.6.7):
//! seconds, or a date in one of three writings. How long anybody really waits is decided elsewhere.

use std::time::Duration;

use crate::time::Timestamp;

/// The wait that `text` asks for, seen from `now`; a date that has passed asks for none.
pub fn delay(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return date(text).map(|date| date.since(now));
    }
    // More digits than a number takes ask for the longest wait.
    Some(text.parse().map_or(Duration::MAX, Duration::from_secs))
}

/// A date as HTTP writes it.
pub fn date(text: &str) -> Option<Timestamp> {
    Some(httpdate::parse_http_date(text.trim()).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_in_all_three_writings_are_read() {
        let now = date("Sun, 06 Nov 1994 08:49:07 GMT").unwrap();
        for (text, seconds) in [
            ("30", Some(30)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(30)),
            ("Sun Nov  6 08:49:37 1994", Some(30)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("soon", None),
            ("1.5", None),
        ] {
            assert_eq!(delay(text, now), seconds.map(Duration::from_secs), "{text:?}");
        }
    }
}
