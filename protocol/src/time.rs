//! A point in time as the wire writes it: RFC 3339, UTC, milliseconds, `Z`. Reading accepts any RFC
//! 3339 offset and precision. And a span of time as people write it.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A UTC timestamp with millisecond precision. Nothing here reads a clock; callers pass what they read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "openapi",
    derive(utoipa::ToSchema),
    schema(value_type = String, format = DateTime, example = "2025-12-11T12:00:00.000Z")
)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch, held inside the years that RFC 3339 can write.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(0, 253_402_207_200_000))
    }

    /// From a query: RFC 3339 and nothing like it. Decoding makes a blank of a `+` that was sent
    /// bare: the one before an offset is read as what was meant.
    pub fn from_query(text: &str) -> Option<Self> {
        let (date, rest) = text.split_at_checked(10)?;
        let rest = rest.strip_prefix(['T', 't', ' '])?;
        let (time, offset) = rest.split_at(rest.find(['Z', 'z', '+', '-', ' '])?);
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let has_form = has_form(date, "0000-00-00")
            && has_form(time, "00:00:00")
            && matches!(fraction.len(), 1..=9)
            && fraction.bytes().all(|byte| byte.is_ascii_digit());
        if !has_form {
            return None;
        }
        let local: jiff::civil::DateTime = format!("{date}T{time}.{fraction}").parse().ok()?;
        // A civil time has no last hours that an offset might lead beyond.
        let millis =
            local.duration_since(jiff::civil::date(1970, 1, 1).to_datetime(jiff::civil::Time::midnight()));
        Some(Self::from_millis(i64::try_from(millis.as_millis()).ok()? - offset_millis(offset)?))
    }

    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// This point moved later by `duration`.
    pub fn plus(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This point moved earlier by `duration`.
    pub fn minus(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How much later this is than `earlier`; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }
}

/// A span of time as people write it: `500ms`, `90s`, `2m`, `1h 30m`, `2d`, and a bare number of
/// seconds. None where it is none, or negative.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let is_bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let span: jiff::Span = if is_bare { format!("{text}s").parse() } else { text.parse() }.ok()?;
    span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?.try_into().ok()
}

/// Whether `text` is `form`, with any digit for each of its zeros.
fn has_form(text: &str, form: &str) -> bool {
    let alike =
        |(byte, expected): (u8, u8)| if expected == b'0' { byte.is_ascii_digit() } else { byte == expected };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(alike)
}

fn offset_millis(offset: &str) -> Option<i64> {
    let (sign, time) = match offset.split_at_checked(1)? {
        ("Z" | "z", "") => return Some(0),
        ("+" | " ", time) => (1, time),
        ("-", time) => (-1, time),
        _ => return None,
    };
    let (hours, minutes) = time.split_once(':').filter(|_| has_form(time, "00:00"))?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000)
}

impl From<std::time::SystemTime> for Timestamp {
    fn from(time: std::time::SystemTime) -> Self {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_millisecond(self.0).map_err(|_| fmt::Error)?;
        write!(f, "{time:.3}")
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        text.parse::<jiff::Timestamp>().map(|time| Self::from_millis(time.as_millisecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("500ms", 500),
            ("90", 90_000),
            (" 1.5 ", 1_500),
            ("2m", 120_000),
            ("1h 30m", 5_400_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", ".", "s", "-1s", "1.2.3", "1 month", "soon", "99999999999999999999h", "9999999999999999999"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn written_with_milliseconds_and_z() {
        assert_eq!(Timestamp::from_millis(1_765_454_400_000).to_string(), "2025-12-11T12:00:00.000Z");
        assert_eq!(Timestamp::from_millis(1_765_454_400_007).to_string(), "2025-12-11T12:00:00.007Z");
    }

    #[test]
    fn read_with_any_offset_and_precision() {
        let noon = Timestamp::from_millis(1_765_454_400_000);
        assert_eq!("2025-12-11T12:00:00Z".parse::<Timestamp>().unwrap(), noon);
        assert_eq!("2025-12-11T13:00:00.000123+01:00".parse::<Timestamp>().unwrap(), noon);
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn a_plus_that_a_query_lost_is_put_back() {
        let noon = Timestamp::from_millis(1_765_454_400_000);
        for text in [
            "2025-12-11T12:00:00Z",
            "2025-12-11T13:00:00+01:00",
            "2025-12-11T13:00:00 01:00",
            "2025-12-11 13:00:00 01:00",
        ] {
            assert_eq!(Timestamp::from_query(text), Some(noon), "{text}");
        }
        for text in ["", " ", "2025-12-11", "2025-12-11T12:00:00", "2025-12-11 12:00:00", "1765454400", "now"]
        {
            assert_eq!(Timestamp::from_query(text), None, "{text}");
        }
    }

    #[test]
    fn a_query_is_read_as_rfc_3339_has_it_and_no_more_leniently() {
        for (text, millis) in [
            ("2025-12-11t12:00:00.5z", 1_765_454_400_500),
            ("2025-12-11T12:00:00.123456789Z", 1_765_454_400_123),
            ("2025-12-11T06:30:00-05:30", 1_765_454_400_000),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
            ("1969-12-31T23:59:59Z", 0),
            ("9999-12-31T23:59:59Z", 253_402_207_200_000),
            ("9999-12-31T23:59:59-23:59", 253_402_207_200_000),
            ("0000-01-01T00:00:00+23:59", 0),
        ] {
            assert_eq!(Timestamp::from_query(text).map(Timestamp::as_millis), Some(millis), "{text}");
        }
        for text in [
            "20251211T120000Z",
            "2025-12-11T12Z",
            "2025-12-11T12:00Z",
            "2025-12-11T12:00:00Z[UTC]",
            "2025-12-11T12:00:00+01:00[Europe/Berlin]",
            "2025-12-11T12:00:00+01",
            "2025-12-11T12:00:00+0100",
            "2025-12-11T12:00:00+01:00:00",
            "2025-12-11T12:00:00+24:00",
            "2025-12-11T12:00:00,5Z",
            "2025-12-11T12:00:00.Z",
            "2025-12-11_12:00:00Z",
            "+002025-12-11T12:00:00Z",
            "-000001-12-11T12:00:00Z",
            "2025-02-29T12:00:00Z",
            "2025-12-11T24:00:00Z",
            " 2025-12-11T12:00:00Z",
            "2025-12-11T12:00:00Z ",
            "2025-12-1١T12:00:00Z",
        ] {
            assert_eq!(Timestamp::from_query(text), None, "{text}");
        }
    }

    #[test]
    fn the_ends_of_time_can_be_written() {
        for millis in [i64::MIN, -1, 0, i64::MAX] {
            assert!(Timestamp::from_millis(millis).to_string().ends_with('Z'));
        }
    }
}
