//! How pages write times, sizes and names. What goes into a page without escaping is made here of numbers and
//! words of our own alone.

use std::{fmt::Write, time::Duration};

use aio_protocol::{node::NodeStatus, telemetry::HealthSummary, time::Timestamp};

/// `text` as a value in an address's query.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A value of an address's query as text.
pub(super) fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next().unwrap_or(b'2'), rest.next().unwrap_or(b'0')];
                let digits = std::str::from_utf8(&digits).unwrap_or("20");
                bytes.push(u8::from_str_radix(digits, 16).unwrap_or(b' '));
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The first value that a query has by this name.
pub(super) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(it, _)| *it == name).map(|(_, value)| unescaped(value)).next()
}

/// A time as HTML: to the second, in UTC; the script writes how long ago it was.
pub(super) fn time(at: &Timestamp) -> String {
    let iso = at.to_string();
    let shown = iso.get(..19).unwrap_or(&iso).replace('T', " ");
    format!("<time datetime=\"{iso}\">{shown}</time>")
}

/// A time as text, where no HTML may stand.
pub(super) fn plain_time(at: &Timestamp) -> String {
    let iso = at.to_string();
    format!("{} UTC", iso.get(..19).unwrap_or(&iso).replace('T', " "))
}

/// A time that may be unknown.
pub(super) fn time_or_none(at: &Option<Timestamp>) -> String {
    at.as_ref().map_or_else(|| "–".to_owned(), time)
}

/// When a node was heard last, as HTML.
pub(super) fn last_heard(at: &Option<Timestamp>) -> String {
    at.as_ref().map_or_else(|| "never heard".to_owned(), |at| format!("last heard {}", time(at)))
}

/// A duration in its largest units, e.g. `4 min 10 s`.
pub(super) fn duration(length: Duration) -> String {
    let secs = length.as_secs();
    match secs {
        0 => format!("{} ms", length.as_millis()),
        1..60 => format!("{}.{} s", secs, length.subsec_millis() / 100),
        60..3600 => format!("{} min {} s", secs / 60, secs % 60),
        3600..86_400 => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3600),
    }
}

/// A size in the unit that leaves few digits.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let unit = UNITS.get(unit).copied().unwrap_or_default();
    if value >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// A share of a whole, to a tenth; all only where it is all.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    if part == whole {
        return "100 %".to_owned();
    }
    let share = part as f64 * 100.0 / whole as f64;
    format!("{:.1} %", share.min(99.9))
}

/// A number with a thin space between thousands.
pub(super) fn number(number: &u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// `1 node`, `2 nodes`.
pub(super) fn counted(count: &u64, one: &str) -> String {
    let s = if *count == 1 { "" } else { "s" };
    format!("{} {one}{s}", number(count))
}

/// What a status means, for whoever points at it.
pub(super) fn about_status(status: &NodeStatus) -> &'static str {
    match status {
        NodeStatus::Pending => "registered; nothing was installed yet",
        NodeStatus::Installing => "the installer is at work",
        NodeStatus::Online => "its worker is heard",
        NodeStatus::Offline => "its worker is not heard",
        NodeStatus::Maintenance => "somebody took it out of service",
        NodeStatus::Error => "the installation failed",
        NodeStatus::Inactive => "decommissioned, for good",
    }
}

/// What a node's health is called: nobody knows it of a node that is not connected.
pub(super) fn health(summary: Option<&HealthSummary>) -> &'static str {
    summary.map_or("unknown", |summary| summary.state.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_shares_and_times_are_short() {
        for (size, text) in
            [(0, "0 B"), (1536, "1.5 KiB"), (80 << 30, "80 GiB"), (85_899_345_921, "80.0 GiB")]
        {
            assert_eq!(bytes(size), text);
        }
        assert_eq!(
            (percent(0, 0), percent(1, 1), percent(9_999, 10_000)),
            ("–".into(), "100 %".into(), "99.9 %".into())
        );
        assert_eq!(number(&1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!((counted(&1, "node"), counted(&0, "node")), ("1 node".into(), "0 nodes".into()));
        let at = Timestamp::from_millis(1_765_454_400_123);
        assert_eq!(time(&at), "<time datetime=\"2025-12-11T12:00:00.123Z\">2025-12-11 12:00:00</time>");
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_plain_and_comes_back(text in ".{0,60}") {
            let there = escaped(&text);
            prop_assert!(there.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~%".contains(&b)));
            prop_assert_eq!(unescaped(&there), text);
        }

        #[test]
        fn no_query_panics(text in "[%+a-f0-9]{0,20}") {
            unescaped(&text);
        }
    }
}
