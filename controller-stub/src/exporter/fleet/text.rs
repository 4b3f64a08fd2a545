//! The text format of Prometheus, version 0.0.4.

use std::fmt::Write;

/// A piece of the text.
pub(super) struct Page {
    text: String,
    capacity: usize,
}

/// Where one node's or GPU's series of a family go.
pub(super) struct Series<'a>(To<'a>);

enum To<'a> {
    /// Into the text, under a name and with these labels.
    Page { page: &'a mut Page, name: &'static str, labels: [&'a str; 2] },
    /// As they are, for whoever writes them in another format.
    Told(&'a mut Vec<Told>),
}

/// A value, and the labels that it has beside its node's or GPU's.
pub(super) struct Told {
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Page {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { text: String::with_capacity(capacity), capacity }
    }

    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Takes the text, and begins anew.
    pub(super) fn take(&mut self) -> String {
        std::mem::replace(&mut self.text, String::with_capacity(self.capacity))
    }

    /// Writes a family's head.
    pub(super) fn begin(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Series of this name with these labels, each of them none or several as `labels` writes them.
    pub(super) fn series<'a>(&'a mut self, name: &'static str, labels: [&'a str; 2]) -> Series<'a> {
        Series(To::Page { page: self, name, labels })
    }
}

impl<'a> Series<'a> {
    /// Series that are told as they are.
    pub(super) fn told(told: &'a mut Vec<Told>) -> Self {
        Self(To::Told(told))
    }

    /// Writes a series, unless there is nothing to say.
    pub(super) fn value(&mut self, value: impl Into<Option<f64>>) {
        self.labelled([], value);
    }

    /// Writes a series with more labels.
    pub(super) fn labelled<const N: usize>(
        &mut self,
        more: [(&str, &str); N],
        value: impl Into<Option<f64>>,
    ) {
        let Some(value) = value.into() else { return };
        let (page, name, labels) = match &mut self.0 {
            To::Page { page, name, labels } => (page, name, labels),
            To::Told(told) => {
                let owned = |(label, value): (&str, &str)| (label.to_owned(), value.to_owned());
                return told.push(Told { labels: more.map(owned).into(), value });
            }
        };
        let text = &mut page.text;
        text.push_str(name);
        text.push('{');
        let before = text.len();
        for labels in labels.iter().filter(|labels| !labels.is_empty()) {
            if text.len() > before {
                text.push(',');
            }
            text.push_str(labels);
        }
        for (label, value) in more {
            if text.len() > before {
                text.push(',');
            }
            push_label(text, label, value);
        }
        let _ = writeln!(text, "}} {value}");
    }
}

/// Labels as a sample has them between its braces.
pub(super) fn labels<const N: usize>(labels: [(&str, &str); N]) -> Box<str> {
    let mut text = String::new();
    for (label, value) in labels.into_iter().filter(|(_, value)| !value.is_empty()) {
        if !text.is_empty() {
            text.push(',');
        }
        push_label(&mut text, label, value);
    }
    text.into()
}

fn push_label(text: &mut String, label: &str, value: &str) {
    text.push_str(label);
    text.push_str("=\"");
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_what_is_empty_is_none() {
        assert_eq!(
            &*labels([("name", "a\"b\\c\nd"), ("uuid", ""), ("model", "ü")]),
            r#"name="a\"b\\c\nd",model="ü""#
        );
        let mut page = Page::with_capacity(10);
        page.series("figure", ["a=\"1\"", "b=\"2\""]).labelled([("c", "3")], 0.5);
        page.series("figure", ["", ""]).value(7e15);
        page.series("figure", ["", ""]).value(None);
        assert_eq!(page.take(), "figure{a=\"1\",b=\"2\",c=\"3\"} 0.5\nfigure{} 7000000000000000\n");
    }
}
