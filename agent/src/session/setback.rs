//! Why there is no session, in the catalogue's words, and how patient to be before the next try.
//! Pure: reads HTTP refusals and close codes, decides no instant.

use std::time::Duration;

use aio_protocol::{
    api::ApiError, error_code::ErrorCode, failure::Failure, retry_after, time::Timestamp, wire::close,
};
use tokio_tungstenite::tungstenite::http::{
    Response,
    header::{LOCATION, RETRY_AFTER},
};

/// A `Retry-After` beyond this is cut: a proxy's mistake must not take a node away for a day.
pub const LONGEST_TOLD: Duration = Duration::from_secs(3600);

/// Maximum number of characters that are told of an address in an answer.
const LOCATION_CHARS: usize = 200;

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setback {
    /// What happened.
    pub cause: Cause,
    /// How long to wait before the next try.
    pub patience: Patience,
}

/// What ended a session, or kept one from beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The connection had to end, and the next one cures it: nothing is wrong.
    Announced(String),
    /// Something is wrong.
    Failed(Failure),
}

/// How long to wait before the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// The ordinary backoff.
    Backoff,
    /// Half a minute to a minute: time alone does not cure it, or the other end has too much to do.
    Long,
    /// As long as the other end said.
    Told(Duration),
}

/// A refusal of the upgrade, as HTTP says it.
#[derive(Debug, Clone, Copy)]
pub struct HttpRefusal<'a> {
    /// The status.
    pub status: u16,
    /// The `Retry-After` header.
    pub retry_after: Option<&'a str>,
    /// The `Location` header.
    pub location: Option<&'a str>,
    /// The body; possibly cut off.
    pub body: &'a [u8],
}

impl<'a> From<&'a Response<Option<Vec<u8>>>> for HttpRefusal<'a> {
    fn from(response: &'a Response<Option<Vec<u8>>>) -> Self {
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        Self {
            status: response.status().as_u16(),
            retry_after: header(RETRY_AFTER),
            location: header(LOCATION),
            body: response.body().as_deref().unwrap_or_default(),
        }
    }
}

impl Setback {
    /// A failure after which the ordinary backoff is waited.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::failed(Failure::new(code, message), Patience::Backoff)
    }

    /// A failure.
    pub fn failed(failure: Failure, patience: Patience) -> Self {
        Self { cause: Cause::Failed(failure), patience }
    }

    /// Nothing is wrong, and the ordinary backoff is waited.
    pub fn announced(message: String) -> Self {
        Self { cause: Cause::Announced(message), patience: Patience::Backoff }
    }

    fn patiently(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The catalogue's code; none when nothing is wrong.
    pub fn code(&self) -> Option<ErrorCode> {
        match &self.cause {
            Cause::Announced(_) => None,
            Cause::Failed(failure) => Some(failure.code),
        }
    }

    /// One sentence on what happened.
    pub fn message(&self) -> &str {
        match &self.cause {
            Cause::Announced(message) => message,
            Cause::Failed(failure) => &failure.message,
        }
    }

    /// What somebody must do about it, where time alone does not help.
    pub fn cure(&self) -> Option<&'static str> {
        self.code().filter(|code| code.needs_a_person()).map(ErrorCode::cure)
    }

    /// Whether it is the token itself that was refused, and another might be welcome.
    pub fn refuses_the_token(&self) -> bool {
        self.code().is_some_and(ErrorCode::refuses_the_token)
    }

    /// The controller (or what stands in its place) refused the upgrade.
    pub fn of_http(refusal: HttpRefusal<'_>, now: Timestamp) -> Self {
        let HttpRefusal { status, retry_after, location, body } = refusal;
        let told = retry_after
            .and_then(|text| retry_after::delay(text, now))
            .map(|told| Patience::Told(told.min(LONGEST_TOLD)));
        let answer = ApiError::read(status, body);
        let code = answer.as_ref().map_or(ErrorCode::of_foreign_status(status), ApiError::error_code);
        let message = match answer {
            Some(answer) => format!("the controller refused the connection ({status}): {}", answer.message),
            None => match location.filter(|_| (300..400).contains(&status)) {
                // Whoever answers could have the token sent anywhere.
                Some(location) => format!(
                    "the answer to the connection was HTTP {status}, to go to `{}`: \
                     the token names the controller, and no answer does",
                    location.chars().take(LOCATION_CHARS).collect::<String>()
                ),
                None if matches!(status, 401 | 403) => format!(
                    "the answer to the connection was HTTP {status}, and not in a controller's form: \
                     a proxy or firewall on the way may have given it"
                ),
                None => format!("the answer to the connection was HTTP {status}"),
            },
        };
        let long = code.needs_a_person() || matches!(status, 429 | 503);
        let patience = told.unwrap_or(if long { Patience::Long } else { Patience::Backoff });
        Self::failed(Failure::new(code, message), patience)
    }

    /// The controller closed the socket.
    pub fn of_close(code: u16, reason: &str) -> Self {
        let said = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let named = reason.split([':', ' ']).next().and_then(ErrorCode::parse);
        match code {
            close::RESTART => Self::announced("the controller restarts".to_owned()),
            close::TRY_LATER => Self::announced(format!("the controller asks to come back later{said}"))
                .patiently(Patience::Long),
            close::TOKEN_ENDED => Self::new(
                named.unwrap_or(ErrorCode::TokenRevoked),
                format!("the controller no longer accepts the token{said}"),
            )
            .patiently(Patience::Long),
            close::FOREIGN => Self::new(
                named.unwrap_or(ErrorCode::TokenForeign),
                format!("the controller says that the token is another node's{said}"),
            )
            .patiently(Patience::Long),
            close::SUPERSEDED => Self::new(
                ErrorCode::NodeSuperseded,
                "another worker connected as this node and took its place",
            )
            .patiently(Patience::Long),
            close::TOO_FAST => {
                Self::new(ErrorCode::RateLimited, format!("the controller found this worker too fast{said}"))
                    .patiently(Patience::Long)
            }
            close::MALFORMED | close::TOO_LARGE | close::PROTOCOL_ERROR | close::NOT_UTF8 => Self::new(
                ErrorCode::Internal,
                format!("the controller did not understand this worker (close code {code}{said})"),
            ),
            close::SILENT => {
                Self::new(ErrorCode::ControllerUnreachable, format!("the controller heard nothing{said}"))
            }
            _ => Self::new(
                ErrorCode::ControllerUnreachable,
                format!("the controller closed the connection (close code {code}{said})"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_765_454_400_000;

    fn http(status: u16, retry_after: Option<&str>, body: &str) -> Setback {
        let refusal = HttpRefusal { status, retry_after, location: None, body: body.as_bytes() };
        Setback::of_http(refusal, Timestamp::from_millis(NOW))
    }

    fn body(status: u16, code: &str) -> String {
        format!(r#"{{"statusCode":{status},"error":"x","message":"in words","code":"{code}"}}"#)
    }

    #[test]
    fn a_refused_token_asks_for_a_person_and_waits_long() {
        for (status, code) in [
            (401, "TOKEN_EXPIRED"),
            (401, "TOKEN_REVOKED"),
            (403, "TOKEN_FOREIGN"),
            (403, "NODE_INACTIVE"),
            (404, "NODE_NOT_FOUND"),
        ] {
            let setback = http(status, None, &body(status, code));
            assert_eq!(setback.code().map(ErrorCode::as_str), Some(code));
            assert_eq!(setback.patience, Patience::Long, "{code}");
            assert!(setback.cure().is_some(), "{code}");
            assert!(setback.message().contains("in words"), "{}", setback.message());
        }
    }

    #[test]
    fn a_status_alone_still_has_a_code() {
        for (status, code, patience) in [
            (401, ErrorCode::ControllerInvalid, Patience::Long),
            (403, ErrorCode::ControllerInvalid, Patience::Long),
            (407, ErrorCode::ControllerInvalid, Patience::Long),
            (404, ErrorCode::ControllerInvalid, Patience::Long),
            (200, ErrorCode::ControllerInvalid, Patience::Long),
            (302, ErrorCode::ControllerInvalid, Patience::Long),
            (429, ErrorCode::RateLimited, Patience::Long),
            (500, ErrorCode::ControllerError, Patience::Backoff),
            (502, ErrorCode::ControllerError, Patience::Backoff),
            (503, ErrorCode::ControllerError, Patience::Long),
        ] {
            let setback = http(status, None, "<html>");
            assert_eq!((setback.code(), setback.patience), (Some(code), patience), "{status}");
            assert!(!setback.refuses_the_token(), "{status}: whoever says that has not seen the token");
        }
    }

    #[test]
    fn a_code_of_a_newer_controller_is_told_by_its_status() {
        let setback = http(401, None, &body(401, "TOKEN_FROM_THE_FUTURE"));
        assert_eq!(setback.code(), Some(ErrorCode::TokenInvalid));
        // Another status inside than outside: something between has answered.
        assert_eq!(http(403, None, &body(401, "TOKEN_EXPIRED")).code(), Some(ErrorCode::ControllerInvalid));
    }

    #[test]
    fn a_redirect_is_told_as_what_it_is_and_leads_nowhere() {
        let redirect = |status, location: &str| {
            let refusal = HttpRefusal {
                status,
                retry_after: None,
                location: Some(location),
                body: b"<html>moved</html>",
            };
            Setback::of_http(refusal, Timestamp::from_millis(NOW))
        };
        for status in [301, 302, 303, 307, 308] {
            let setback = redirect(status, "https://elsewhere.example/ws/node");
            assert_eq!(setback.code(), Some(ErrorCode::ControllerInvalid), "{status}");
            assert_eq!(setback.patience, Patience::Long, "{status}");
            for word in [&status.to_string(), "`https://elsewhere.example/ws/node`"] {
                assert!(setback.message().contains(word), "{}", setback.message());
            }
        }
        let long = "x".repeat(10_000);
        assert!(redirect(302, &long).message().len() < 400);
        assert!(!redirect(404, "https://elsewhere.example").message().contains("elsewhere"));
    }

    #[test]
    fn retry_after_wins_in_seconds_and_as_a_date() {
        let told = |seconds| Patience::Told(Duration::from_secs(seconds));
        assert_eq!(http(503, Some("7"), "").patience, told(7));
        assert_eq!(http(429, Some(" 0 "), "").patience, told(0));
        assert_eq!(http(503, Some("Thu, 11 Dec 2025 12:00:30 GMT"), "").patience, told(30));
        assert_eq!(http(503, Some("Thu, 11 Dec 2025 11:00:00 GMT"), "").patience, told(0));
        assert_eq!(http(503, Some("86400"), "").patience, Patience::Told(LONGEST_TOLD));
        assert_eq!(http(503, Some("99999999999999999999999"), "").patience, Patience::Told(LONGEST_TOLD));
        assert_eq!(http(503, Some("soon"), "").patience, Patience::Long);
    }

    #[test]
    fn every_close_code_of_the_protocol_is_obeyed() {
        for (close, code, patience) in [
            (close::RESTART, None, Patience::Backoff),
            (close::TRY_LATER, None, Patience::Long),
            (close::TOO_LARGE, Some(ErrorCode::Internal), Patience::Backoff),
            (close::MALFORMED, Some(ErrorCode::Internal), Patience::Backoff),
            (close::PROTOCOL_ERROR, Some(ErrorCode::Internal), Patience::Backoff),
            (close::NOT_UTF8, Some(ErrorCode::Internal), Patience::Backoff),
            (close::TOKEN_ENDED, Some(ErrorCode::TokenRevoked), Patience::Long),
            (close::FOREIGN, Some(ErrorCode::TokenForeign), Patience::Long),
            (close::SILENT, Some(ErrorCode::ControllerUnreachable), Patience::Backoff),
            (close::SUPERSEDED, Some(ErrorCode::NodeSuperseded), Patience::Long),
            (close::TOO_FAST, Some(ErrorCode::RateLimited), Patience::Long),
            (1000, Some(ErrorCode::ControllerUnreachable), Patience::Backoff),
            (1006, Some(ErrorCode::ControllerUnreachable), Patience::Backoff),
        ] {
            let setback = Setback::of_close(close, "");
            assert_eq!((setback.code(), setback.patience), (code, patience), "{close}");
        }
    }

    #[test]
    fn a_close_reason_that_names_a_code_is_believed() {
        for reason in ["TOKEN_EXPIRED", "TOKEN_EXPIRED: ended at noon", "TOKEN_EXPIRED since noon"] {
            assert_eq!(
                Setback::of_close(close::TOKEN_ENDED, reason).code(),
                Some(ErrorCode::TokenExpired),
                "{reason}"
            );
        }
    }
}
