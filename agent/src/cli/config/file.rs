//! `config.toml` read to its end, whatever is wrong with it: every fault with its line, and what is
//! left of the file without them. Pure; which keys there are, and of which types, is for the type
//! that is read to say: `aio_host::config` alone knows.

use std::{collections::BTreeMap, ops::Range};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer, Error},
};

/// A key must resemble a known one by this much to be taken for a slip of the pen (Jaro and
/// Winkler's measure, from 0 to 1).
const RESEMBLANCE: f64 = 0.8;

/// Something that the daemon would refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The key, with its tables before it, e.g. `log`; none where the text is no TOML.
    pub(super) key: Option<String>,
    /// From 1.
    pub(super) line: Option<usize>,
    pub(super) message: String,
}

/// What a file says.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading<T> {
    /// Without what is at fault.
    pub(super) config: T,
    pub(super) faults: Vec<Fault>,
    /// On which line each key stands.
    lines: BTreeMap<String, usize>,
}

impl<T: DeserializeOwned + Default> Reading<T> {
    /// Reads a file's text.
    pub(super) fn of(text: &str) -> Self {
        let (mut table, errors) = DeTable::parse_recoverable(text);
        let line = |span: Option<Range<usize>>| span.map(|span| line(text, span.start));
        let mut faults: Vec<_> = errors
            .iter()
            .map(|error| Fault { key: None, line: line(error.span()), message: error.message().to_owned() })
            .collect();
        // What comes after a line's first fault comes of it.
        faults.dedup_by_key(|fault| fault.line);
        let broken: Vec<_> = faults.iter().map(|fault| fault.line).collect();
        let mut lines = BTreeMap::new();
        note_lines(table.get_ref(), "", text, &mut lines);
        let config = loop {
            let error = match T::deserialize(Deserializer::from(table.clone())) {
                Ok(config) => break config,
                Err(error) => error,
            };
            let removed = error.span().and_then(|span| remove(table.get_mut(), &span));
            let message = words(&error, removed.as_deref());
            let fault = Fault { key: removed.clone(), line: line(error.span()), message };
            // What is no TOML on a line is said already; what was made of it is no second fault.
            if !broken.contains(&fault.line) {
                faults.push(fault);
            }
            if removed.is_none() {
                break T::default();
            }
        };
        faults.sort_by_key(|fault| fault.line);
        Self { config, faults, lines }
    }

    /// On which line a key stands.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        self.lines.get(key).copied()
    }
}

/// The line, from 1, of the byte at `offset`.
fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn note_lines(table: &DeTable<'_>, path: &str, text: &str, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let path = joined(path, key.get_ref());
        if let DeValue::Table(table) = value.get_ref() {
            note_lines(table, &path, text, lines);
        }
        lines.insert(path, line(text, key.span().start));
    }
}

/// Takes the innermost entry that a fault is in out of the table; gives its path.
fn remove(table: &mut DeTable<'_>, fault: &Range<usize>) -> Option<String> {
    let mut found = None;
    for (key, value) in table.iter_mut() {
        if let DeValue::Table(table) = value.get_mut()
            && let Some(path) = remove(table, fault)
        {
            return Some(joined(key.get_ref(), &path));
        }
        if holds(key, fault) || holds(value, fault) {
            found = Some(key.clone());
            break;
        }
    }
    let key = found?;
    table.remove(&key);
    Some(key.into_inner().into_owned())
}

fn holds<T>(part: &Spanned<T>, fault: &Range<usize>) -> bool {
    let span = part.span();
    span.start <= fault.start && fault.end <= span.end
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// What is wrong with a key; of an unknown one, which known one is nearest.
fn words(error: &Error, key: Option<&str>) -> String {
    let message = error.message();
    let Some((unknown, known)) = unknown_key(message) else {
        return key.map_or_else(|| message.to_owned(), |key| format!("`{key}`: {message}"));
    };
    let resemblance = |key: &&str| strsim::jaro_winkler(unknown, key);
    let nearest = known.iter().max_by(|a, b| resemblance(a).total_cmp(&resemblance(b)));
    match nearest.filter(|key| resemblance(key) >= RESEMBLANCE) {
        Some(nearest) => format!("unknown key `{unknown}`; did you mean `{nearest}`?"),
        None => format!("unknown key `{unknown}`; known are {}", known.join(", ")),
    }
}

/// serde says what it does not know, and what it does, in one sentence: "unknown field `a`,
/// expected one of `b`, `c`".
fn unknown_key(message: &str) -> Option<(&str, Vec<&str>)> {
    let (unknown, known) = message.strip_prefix("unknown field `")?.split_once("`, expected ")?;
    Some((unknown, known.split('`').skip(1).step_by(2).collect()))
}

/// Every key that a type reads, in its own order. serde tells them to whoever names one that cannot be.
pub(super) fn known_keys<T: DeserializeOwned>() -> Vec<String> {
    let refusal = toml::from_str::<T>("\"\" = 0").err();
    let keys = refusal.as_ref().and_then(|error| unknown_key(error.message())).map(|(_, known)| known);
    keys.unwrap_or_default().into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use aio_host::config::ConfigFile;
    use serde::Deserialize;

    use super::*;

    fn faults(text: &str) -> Vec<(Option<String>, Option<usize>, String)> {
        let faults = Reading::<ConfigFile>::of(text).faults;
        faults.into_iter().map(|fault| (fault.key, fault.line, fault.message)).collect()
    }

    #[test]
    fn every_fault_is_told_with_its_line_and_the_rest_is_read() {
        let text = "# mine\ncontoller_endpoint = \"wss://x\"\nlog = \"debug\"\n\ninsecure_http = \"perhaps\"\nzzz = 1\n";
        let reading = Reading::<ConfigFile>::of(text);
        let places: Vec<_> = reading.faults.iter().map(|fault| (fault.key.as_deref(), fault.line)).collect();
        let expected =
            [(Some("contoller_endpoint"), Some(2)), (Some("insecure_http"), Some(5)), (Some("zzz"), Some(6))];
        assert_eq!(places, expected);
        let messages: Vec<_> = reading.faults.iter().map(|fault| fault.message.as_str()).collect();
        assert_eq!(messages[0], "unknown key `contoller_endpoint`; did you mean `controller_endpoint`?");
        assert_eq!(messages[1], "`insecure_http`: invalid type: string \"perhaps\", expected a boolean");
        assert!(
            messages[2].starts_with("unknown key `zzz`; known are controller_endpoint, "),
            "{messages:?}"
        );
        assert_eq!(reading.config.log.as_deref(), Some("debug"));
        assert_eq!(reading.line("log"), Some(3));
    }

    #[test]
    fn a_table_where_a_value_belongs_is_one_fault() {
        let reading = Reading::<ConfigFile>::of("log = \"info\"\n[proxy]\nhost = \"x\"\n");
        assert_eq!(reading.faults.len(), 1, "{:?}", reading.faults);
        assert_eq!(reading.faults[0].key.as_deref(), Some("proxy"));
        assert_eq!(reading.config.log.as_deref(), Some("info"));
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nested {
        name: Option<String>,
        #[serde(default)]
        limits: Limits,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Limits {
        hottest: Option<u32>,
        coldest: Option<u32>,
    }

    #[test]
    fn a_fault_in_a_table_is_that_key_s_and_the_rest_of_the_table_is_read() {
        let places = |reading: &Reading<Nested>| {
            let places = reading.faults.iter().map(|fault| (fault.key.clone().unwrap(), fault.line.unwrap()));
            places.collect::<Vec<_>>()
        };
        let of = |key: &str, line: usize| (key.to_owned(), line);
        let text = "name = \"x\"\n[limits]\nhotest = 90\nhottest = 85\ncoldest = \"cold\"\n";
        let reading = Reading::<Nested>::of(text);
        assert_eq!(places(&reading), [of("limits.hotest", 3), of("limits.coldest", 5)]);
        assert_eq!(reading.faults[0].message, "unknown key `hotest`; did you mean `hottest`?");
        assert_eq!((reading.config.name.as_deref(), reading.config.limits.hottest), (Some("x"), Some(85)));
        assert_eq!(reading.config.limits.coldest, None);
        assert_eq!(reading.line("limits.hottest"), Some(4));
        for text in ["limits.hotest = 90\nlimits.hottest = 85\n", "limits = { hotest = 90, hottest = 85 }\n"]
        {
            let reading = Reading::<Nested>::of(text);
            assert_eq!(places(&reading), [of("limits.hotest", 1)], "{text}");
            assert_eq!(reading.config.limits.hottest, Some(85), "{text}");
        }
        let reading = Reading::<Nested>::of("limits = 7\nname = \"x\"\n");
        assert_eq!(places(&reading), [of("limits", 1)]);
        assert_eq!(reading.config.name.as_deref(), Some("x"));
    }

    #[test]
    fn an_unknown_table_is_one_fault_whatever_is_in_it() {
        let found = faults("[nonsense]\na = 1\nb = 2\n");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].0.as_deref(), found[0].1), (Some("nonsense"), Some(1)));
    }

    #[test]
    fn what_is_no_toml_is_told_once_a_line_and_the_rest_is_read() {
        let found = faults("= =\nlog = \"info\nproxi = \"x\"\n");
        let lines: Vec<_> = found.iter().map(|fault| fault.1).collect();
        assert!(lines.contains(&Some(1)) && lines.contains(&Some(2)), "{found:?}");
        let mut once = lines.clone();
        once.dedup();
        assert_eq!(once, lines, "{found:?}");
        let twice = faults("log = \"info\"\nlog = \"debug\"\n");
        assert_eq!(twice.len(), 1, "{twice:?}");
        assert_eq!(twice[0].1, Some(2));
    }

    #[test]
    fn all_keys_of_a_type_are_known() {
        assert_eq!(known_keys::<Nested>(), ["name", "limits"]);
        assert_eq!(known_keys::<Limits>(), ["hottest", "coldest"]);
    }

    #[test]
    fn the_documented_sample_has_no_fault() {
        assert_eq!(faults(include_str!("../../../../packaging/config.toml")), []);
    }
}
