//! The times at which a node may update itself, by its own clock on the wall: days of the week and
//! spans of the day, in the words of systemd's calendar events as far as these say spans. Pure.

use std::{fmt, str::FromStr};

use jiff::civil::{DateTime, Weekday};

/// The days' names, from Monday, as systemd.time(7) shortens them.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Minutes of a day.
const DAY: u32 = 24 * 60;

/// A window: on some days of the week, from one time of the day to another, which may be on the
/// next day. `Sat,Sun 02:00-05:00`, `Mon..Fri 22:00-06:00`, `01:30-03:00`, `Sun`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    text: String,
    /// From Monday.
    days: [bool; 7],
    /// In minutes from midnight.
    from: u32,
    until: u32,
}

/// A text that is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no window such as `Sat,Sun 02:00-05:00` or `Mon..Fri 22:00-06:00`: {why}")]
pub struct NoWindow {
    text: String,
    why: &'static str,
}

impl FromStr for Window {
    type Err = NoWindow;

    fn from_str(text: &str) -> Result<Self, NoWindow> {
        let no = |why| NoWindow { text: text.to_owned(), why };
        let words: Vec<_> = text.split_whitespace().collect();
        let (days, span) = match words.as_slice() {
            [word] if word.contains(':') => (None, Some(*word)),
            [word] => (Some(*word), None),
            [days, span] => (Some(*days), Some(*span)),
            _ => return Err(no("it has the days, the times, or both, and a blank between")),
        };
        let days = match days {
            Some(days) => weekdays(days).ok_or_else(|| no("days are Mon, Tue, Wed, Thu, Fri, Sat, Sun"))?,
            None => [true; 7],
        };
        let (from, until) = match span {
            Some(span) => times(span).ok_or_else(|| no("times are from 00:00 to 24:00, as HH:MM-HH:MM"))?,
            None => (0, DAY),
        };
        if from == until {
            return Err(no("it ends when it begins"));
        }
        Ok(Self { text: text.to_owned(), days, from, until })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Window {
    /// Whether it is open at this time of the node's own clock on the wall.
    pub fn is_open_at(&self, local: DateTime) -> bool {
        let minute = u32::try_from(i32::from(local.hour()) * 60 + i32::from(local.minute())).unwrap_or(0);
        let on =
            |day: Weekday| self.days.get(usize::from(day.to_monday_zero_offset().unsigned_abs())).copied();
        let today = on(local.weekday()).unwrap_or(false);
        if self.from < self.until {
            return today && (self.from..self.until).contains(&minute);
        }
        // It began on the day before, or begins today and ends tomorrow.
        let yesterday = on(local.weekday().previous()).unwrap_or(false);
        (today && minute >= self.from) || (yesterday && minute < self.until)
    }
}

/// `Sat,Sun`, `Mon..Fri`, or both together.
fn weekdays(text: &str) -> Option<[bool; 7]> {
    let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once("..").unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        // A week has no end: `Sat..Mon` are three days.
        let length = (last + 7 - first) % 7;
        for index in (first..=first + length).map(|index| index % 7) {
            *days.get_mut(index)? = true;
        }
    }
    Some(days)
}

/// `HH:MM-HH:MM`.
fn times(text: &str) -> Option<(u32, u32)> {
    let (from, until) = text.split_once('-')?;
    let time = |text: &str| {
        let (hour, minute) = text.split_once(':')?;
        let number = |text: &str| {
            let digits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u32>().ok()).flatten()
        };
        let minutes = number(hour)? * 60 + number(minute).filter(|minute| *minute < 60)?;
        (minutes <= DAY).then_some(minutes)
    };
    Some((time(from).filter(|from| *from < DAY)?, time(until)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(window: &str, local: &str) -> bool {
        window.parse::<Window>().unwrap().is_open_at(local.parse().unwrap())
    }

    #[test]
    fn a_window_is_open_on_its_days_between_its_times() {
        // The 28th of November 2026 is a Saturday.
        for (window, at, expected) in [
            ("Sat,Sun 02:00-05:00", "2026-11-28T02:00", true),
            ("Sat,Sun 02:00-05:00", "2026-11-29T04:59", true),
            ("Sat,Sun 02:00-05:00", "2026-11-28T05:00", false),
            ("Sat,Sun 02:00-05:00", "2026-11-28T01:59", false),
            ("Sat,Sun 02:00-05:00", "2026-11-27T03:00", false),
            ("02:00-05:00", "2026-11-27T03:00", true),
            ("Sat", "2026-11-28T00:00", true),
            ("Sat", "2026-11-28T23:59", true),
            ("sat", "2026-11-29T00:00", false),
            ("Mon..Fri 9:00-17:00", "2026-11-27T12:00", true),
            ("Mon..Fri 9:00-17:00", "2026-11-28T12:00", false),
            ("Fri..Mon", "2026-11-30T12:00", true),
            ("Fri..Mon", "2026-12-01T12:00", false),
            ("Mon,Wed..Thu 00:00-24:00", "2026-11-26T23:59", true),
        ] {
            assert_eq!(open(window, at), expected, "{window} at {at}");
        }
    }

    #[test]
    fn a_night_is_of_the_day_on_which_it_begins() {
        for (at, expected) in [
            ("2026-11-27T21:59", false),
            ("2026-11-27T22:00", true),
            ("2026-11-28T00:00", true),
            ("2026-11-28T05:59", true),
            ("2026-11-28T06:00", false),
            ("2026-11-28T22:00", false),
            ("2026-11-27T03:00", false),
        ] {
            assert_eq!(open("Fri 22:00-06:00", at), expected, "{at}");
        }
    }

    #[test]
    fn what_is_no_window_is_refused_and_said() {
        for text in [
            "",
            "always",
            "Sat Sun",
            "Sat,",
            "Sat..",
            "25:00-26:00",
            "02:60-03:00",
            "02:00",
            "02:00-02:00",
            "24:00-02:00",
            "Sat 02:00-05:00 UTC",
            "002:00-03:00",
            "-1:00-02:00",
            "2026-11-28",
        ] {
            let error = text.parse::<Window>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{text}` is no window such as ")), "{error}");
        }
    }
}
