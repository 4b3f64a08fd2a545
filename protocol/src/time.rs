//! A point in time as the wire writes it: RFC 3339, UTC, milliseconds, `Z`. Reading accepts any RFC 3339 offset and precision.

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

    /// From a query, whose decoding makes a blank of a `+` that was sent bare: the one before an offset is put back.
    pub fn from_query(text: &str) -> Option<Self> {
        let restored = || text.rsplit_once(' ').map(|(time, offset)| format!("{time}+{offset}"));
        text.parse().ok().or_else(|| restored()?.parse().ok())
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
    fn the_ends_of_time_can_be_written() {
        for millis in [i64::MIN, -1, 0, i64::MAX] {
            assert!(Timestamp::from_millis(millis).to_string().ends_with('Z'));
        }
    }
}
