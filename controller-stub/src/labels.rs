//! Labels of nodes, by the rules of Kubernetes: a map of keys to values, to find and group nodes by. And the
//! natural order of names.

use std::{collections::BTreeMap, fmt::Write, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr, Schema,
        schema::{SchemaType, Type},
    },
};

/// Labels of one node.
const MAX_LABELS: usize = 64;

/// A DNS subdomain.
const MAX_PREFIX_BYTES: usize = 253;

/// A key's name, and a value.
const MAX_NAME_BYTES: usize = 63;

/// A node's labels: at most 64. A key is a name of 1 to 63 letters, digits, `-`, `_` and `.`, which
/// begins and ends with a letter or digit, or a DNS name, `/` and such a name; a value is such a
/// name or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub(crate) struct Labels(BTreeMap<String, String>);

/// One condition on labels: `key=value`, or `key` alone, whatever its value.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Selector {
    key: String,
    value: Option<String>,
}

/// The value of a label, which is not empty.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 1, max_length = 63, pattern = "^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$", example = "gpu")]
pub(crate) struct Label(String);

impl TryFrom<String> for Label {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        check_value(&text)?;
        if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(Self(text)) }
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

/// Changes of labels: a text sets one, `null` takes it away; all others stay.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct LabelChanges(pub BTreeMap<String, Option<String>>);

const KEY_PATTERN: &str = concat!(
    "^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*/)?",
    "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
);

const VALUE_PATTERN: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$";

/// A map of labels, whose values have these types.
fn schema_of_labels(types: SchemaType) -> RefOr<Schema> {
    let key = ObjectBuilder::new().schema_type(Type::String).pattern(Some(KEY_PATTERN));
    let value = ObjectBuilder::new().schema_type(types).pattern(Some(VALUE_PATTERN));
    ObjectBuilder::new()
        .property_names(Some(Schema::from(key)))
        .additional_properties(Some(Schema::from(value)))
        .max_properties(Some(MAX_LABELS))
        .description(Some("As Kubernetes writes labels"))
        .examples([serde_json::json!({"rack": "r7", "example.com/gpu": "h100"})])
        .into()
}

impl PartialSchema for Labels {
    fn schema() -> RefOr<Schema> {
        schema_of_labels(Type::String.into())
    }
}

impl ToSchema for Labels {}

impl PartialSchema for LabelChanges {
    fn schema() -> RefOr<Schema> {
        schema_of_labels(SchemaType::from_iter([Type::String, Type::Null]))
    }
}

impl ToSchema for LabelChanges {}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = String;

    fn try_from(labels: BTreeMap<String, String>) -> Result<Self, String> {
        if labels.len() > MAX_LABELS {
            return Err(format!("must be at most {MAX_LABELS} labels"));
        }
        for (key, value) in &labels {
            check_key(key)?;
            check_value(value)?;
        }
        Ok(Self(labels))
    }
}

impl Labels {
    /// These labels with `changes` made: a value sets a label, none takes it away.
    pub(crate) fn changed(&self, changes: BTreeMap<String, Option<String>>) -> Result<Self, String> {
        let mut labels = self.0.clone();
        for (key, value) in changes {
            match value {
                Some(value) => labels.insert(key, value),
                None => {
                    Self::try_from(BTreeMap::from([(key.clone(), String::new())]))?;
                    labels.remove(&key)
                }
            };
        }
        labels.try_into()
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (text, None),
        };
        check_key(key)?;
        value.map(check_value).transpose()?;
        Ok(Self { key: key.to_owned(), value: value.map(str::to_owned) })
    }
}

impl TryFrom<String> for Selector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Selector {
    /// What the JSON of labels holds exactly when they fit: no character of a key or value is
    /// written in another way there.
    pub(crate) fn in_json(&self) -> String {
        match &self.value {
            Some(value) => format!("\"{}\":\"{value}\"", self.key),
            None => format!("\"{}\":", self.key),
        }
    }
}

fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if !is_name(name) || prefix.is_some_and(|prefix| !is_dns(prefix)) {
        return Err(format!(
            "`{key}` is no label key: a name of 1 to 63 letters, digits, `-`, `_` or `.`, or `dns.name/name`"
        ));
    }
    Ok(())
}

fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || is_name(value) {
        return Ok(());
    }
    Err(format!(
        "`{value}` is no label value: at most 63 letters, digits, `-`, `_` or `.`, the first and last a letter or digit"
    ))
}

fn is_name(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= MAX_NAME_BYTES
        && ends(text.chars().next())
        && ends(text.chars().next_back())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn is_dns(text: &str) -> bool {
    let is_part = |part: &str| is_name(part) && !part.bytes().any(|b| b == b'_' || b.is_ascii_uppercase());
    text.len() <= MAX_PREFIX_BYTES && text.split('.').all(is_part)
}

/// A text whose plain order is the natural order of names: before each number stands how long it is.
pub(crate) fn natural_key(name: &str) -> String {
    let mut key = String::with_capacity(name.len() + 8);
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let of_kind = |c: char| c.is_ascii_digit() == first.is_ascii_digit();
        let (run, after) = rest.split_at(rest.find(|c| !of_kind(c)).unwrap_or(rest.len()));
        if first.is_ascii_digit() {
            let number = run.trim_start_matches('0');
            let _ = write!(key, "{:03}{number}", number.len());
        } else {
            key.push_str(run);
        }
        rest = after;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Result<Labels, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>().try_into()
    }

    #[test]
    fn labels_are_written_as_kubernetes_writes_them() {
        let long = "x".repeat(63);
        for (key, value) in
            [("rack", "r7"), ("a", ""), ("example.com/gpu-type", "H100_80.GB"), (&long, &long), ("9", "9")]
        {
            assert!(labels(&[(key, value)]).is_ok(), "{key}={value}");
        }
        let (longer, dns) = ("x".repeat(64), format!("{}/a", "d.".repeat(127)));
        for (key, value) in [
            ("", "x"),
            ("-a", "x"),
            ("a-", "x"),
            ("a b", "x"),
            ("a/b/c", "x"),
            ("/a", "x"),
            ("a/", "x"),
            ("Upper.example/a", "x"),
            ("under_score/a", "x"),
            (".example/a", "x"),
            (&longer, "x"),
            (&dns, "x"),
            ("a", "-x"),
            ("a", "x\"y"),
            ("a", "é"),
            ("a", &longer),
        ] {
            assert!(labels(&[(key, value)]).is_err(), "{key}={value}");
        }
        let many: BTreeMap<_, _> = (0..65).map(|n| (format!("k{n}"), String::new())).collect();
        assert!(Labels::try_from(many).is_err());
    }

    #[test]
    fn a_change_sets_and_takes_away_and_leaves_the_rest() {
        let before = labels(&[("rack", "r7"), ("gpu", "h100")]).unwrap();
        let changes = [("rack".to_owned(), None), ("zone".to_owned(), Some("a".to_owned()))];
        let after = before.changed(changes.into_iter().collect()).unwrap();
        assert_eq!(after, labels(&[("gpu", "h100"), ("zone", "a")]).unwrap());
        assert!(before.changed([("a b".to_owned(), Some("x".to_owned()))].into_iter().collect()).is_err());
    }

    #[test]
    fn a_selector_finds_the_label_and_no_other() {
        let json =
            serde_json::to_string(&labels(&[("a", "b"), ("b", "c"), ("x.y/a", "d")]).unwrap()).unwrap();
        let fits = |text: &str| json.contains(&text.parse::<Selector>().unwrap().in_json());
        assert!(fits("a=b") && fits("b") && fits("x.y/a") && fits("x.y/a=d"));
        for text in ["a=c", "c", "a=", "d", "y/a", "A=b"] {
            assert!(!fits(text), "{text}");
        }
        for text in ["", "=b", "a=b=c", "a b", "a=b\"", "a!=b"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_ordered_as_people_count() {
        let mut names =
            ["gpu-10", "gpu-2", "gpu-1", "gpu-02b", "gpu", "Gpu-3", "a10b2", "a2b10", "9", "10", ""];
        names.sort_by_key(|name| natural_key(name));
        assert_eq!(
            names,
            ["", "9", "10", "Gpu-3", "a2b10", "a10b2", "gpu", "gpu-1", "gpu-2", "gpu-02b", "gpu-10"]
        );
    }
}
