//! What a check of the configuration found, and how it looks. Decides no finding.

use std::path::{Path, PathBuf};

use aio_protocol::error_code::ErrorCode;
use serde::{Serialize, Serializer};

use crate::cli::paint::{Tone, paint};

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// The daemon would not start, or not connect.
    Error,
    /// It would, and somebody should know.
    Warning,
    /// What could not be looked at.
    Note,
}

/// Where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Place {
    /// The file that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<PathBuf>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<usize>,
    /// The key of the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    /// The variable of the environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) variable: Option<String>,
}

impl Place {
    pub(super) fn variable(name: &str) -> Self {
        Self { variable: Some(name.to_owned()), ..Self::default() }
    }

    pub(super) fn file(path: &Path) -> Self {
        Self { file: Some(path.to_owned()), ..Self::default() }
    }

    fn words(&self) -> String {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        match (&self.file, &self.variable) {
            (Some(file), _) => format!("{}{line}: ", file.display()),
            (None, Some(variable)) => format!("{variable}: "),
            (None, None) => String::new(),
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    #[serde(serialize_with = "as_str")]
    pub(super) code: ErrorCode,
    #[serde(flatten)]
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) cure: String,
}

fn as_str<S: Serializer>(code: &ErrorCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.as_str())
}

impl Finding {
    pub(super) fn new(severity: Severity, code: ErrorCode, place: Place, message: impl Into<String>) -> Self {
        Self { severity, code, place, message: message.into(), cure: code.cure().to_owned() }
    }

    /// Where it is, and what it is.
    pub(super) fn sentence(&self) -> String {
        let Self { place, message, .. } = self;
        // Who refuses a variable names it, too.
        let named = place.variable.as_ref().is_some_and(|name| message.starts_with(name.as_str()));
        if named { message.clone() } else { format!("{}{message}", place.words()) }
    }

    pub(super) fn cured_by(self, cure: &str) -> Self {
        Self { cure: cure.to_owned(), ..self }
    }
}

/// All findings, for people, who read each cure once.
pub(super) fn screen(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut cures = Vec::new();
    for finding in findings {
        let Finding { severity, code, cure, .. } = finding;
        let (word, tone) = match severity {
            Severity::Error => ("error", Tone::Bad),
            Severity::Warning => ("warning", Tone::Doubtful),
            Severity::Note => ("note", Tone::Faint),
        };
        let word = paint(tone, &format!("{word:<8}"));
        text.push_str(&format!("{word} {} [{code}]\n", finding.sentence()));
        if !cures.contains(&cure) {
            text.push_str(&format!("{:<9}{cure}\n", ""));
            cures.push(cure);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_with_its_place_and_each_cure_another() {
        let place = Place { line: Some(3), key: Some("log".into()), ..Place::file(Path::new("/etc/c.toml")) };
        let findings = [
            Finding::new(Severity::Error, ErrorCode::ConfigInvalid, place, "no filter").cured_by("Say info."),
            Finding::new(Severity::Note, ErrorCode::TokenMissing, Place::variable("AIO_X"), "not seen")
                .cured_by("Look."),
            Finding::new(
                Severity::Warning,
                ErrorCode::TokenMissing,
                Place::variable("AIO_X"),
                "AIO_X is odd",
            )
            .cured_by("Look."),
        ];
        assert_eq!(
            screen(&findings),
            "error    /etc/c.toml:3: no filter [CONFIG_INVALID]\n         Say info.\n\
             note     AIO_X: not seen [TOKEN_MISSING]\n         Look.\n\
             warning  AIO_X is odd [TOKEN_MISSING]\n"
        );
        let expected = serde_json::json!({ "severity": "error", "code": "CONFIG_INVALID", "file": "/etc/c.toml",
            "line": 3, "key": "log", "message": "no filter", "cure": "Say info." });
        assert_eq!(serde_json::to_value(&findings[0]).unwrap(), expected);
    }
}
