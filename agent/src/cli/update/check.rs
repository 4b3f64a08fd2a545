//! `aio-worker update check`: reads the controller's index of releases as it is served now, and says
//! what this node could go to. Verifies no signature: root does that before it installs anything.

use std::time::SystemTime;

use aio_host::layout::Layout;
use aio_installer::{
    ReleaseTree,
    cli::{Failure, Output, print},
};
use aio_protocol::{
    error_code::ErrorCode,
    release::{
        ReleaseVersion,
        index::{INDEX, MAX_INDEX_BYTES, ReleaseIndex},
    },
    time::Timestamp,
};
use serde::Serialize;

use crate::{
    cli::answer::{Answer, print_json, runtime},
    config::{Flags, WorkerConfig, environment, is_withheld},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Reads the token, which only root may, to find the controller. The index is shown as it is served; root verifies it before anything is installed.

Exit status: 0; 77 not root; 78 no usable token or configuration; 69 the controller has no index; 1 it cannot be reached.")]
pub(super) struct Arguments {
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    pub(super) answer: Answer,
}

/// The answer for programs.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked {
    /// The version of this program.
    version: ReleaseVersion,
    /// The newest release in the index that is no preview.
    newest: Option<ReleaseVersion>,
    /// What would be installed next on the way there; none where there is no way, or nothing newer.
    next: Option<ReleaseVersion>,
    index_serial: u64,
    expires_at: Timestamp,
    expired: bool,
    floor: Option<ReleaseVersion>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let withheld = arguments.flags.token.is_none() && arguments.flags.token_file.is_none();
    if withheld && is_withheld(&Layout::default().token()) {
        let message = "the token, which says where the controller is, is for root to read";
        return Err(Failure::new(ErrorCode::NotRoot, message));
    }
    let config = WorkerConfig::load(&arguments.flags, &environment)?;
    let index = runtime()?.block_on(read(&config))?;
    let checked = judge(&index, ReleaseVersion::running(), SystemTime::now().into());
    match arguments.answer.output {
        Output::Json => print_json(&checked),
        Output::Text => print(&screen(&checked)),
    }
}

async fn read(config: &WorkerConfig) -> Result<ReleaseIndex, Failure> {
    let base = format!("{}/releases", config.token.read()?.claims().api.trim_end_matches('/'));
    let tree = ReleaseTree::at(&base, &config.release_trust()?, config.proxy.as_ref(), config.insecure_http)?;
    let bytes = tree.read(INDEX, MAX_INDEX_BYTES).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::new(ErrorCode::IndexInvalid, format!("{INDEX} cannot be read: {error}")))
}

fn judge(index: &ReleaseIndex, version: ReleaseVersion, now: Timestamp) -> Checked {
    let is_preview = |version: &ReleaseVersion| version.to_string().contains('-');
    let newest = index.releases.keys().rev().find(|version| !is_preview(version)).cloned();
    let newer = newest.as_ref().filter(|newest| **newest > version);
    let next = newer.and_then(|newest| index.next_step(&version, newest)).cloned();
    Checked {
        next,
        newest,
        version,
        index_serial: index.serial,
        expires_at: index.expires_at,
        expired: index.expired(now),
        floor: index.floor.clone(),
    }
}

fn screen(checked: &Checked) -> String {
    let Checked { version, newest, next, index_serial, expires_at, expired, floor } = checked;
    let verdict = match (newest, next) {
        (None, _) => "the index names no release".to_owned(),
        (Some(newest), _) if newest <= version => format!("{version} is the newest"),
        (Some(newest), Some(next)) if newest == next => format!("{newest} is there"),
        (Some(newest), Some(next)) => format!("{newest} is there; the way leads by {next}"),
        (Some(newest), None) => format!("{newest} is there, and no way leads to it from {version}"),
    };
    let held = if *expired { "expired at" } else { "holds until" };
    let floor = floor.as_ref().map(|floor| format!("; nothing below {floor}")).unwrap_or_default();
    format!("{verdict}\nthe index (serial {index_serial}) {held} {expires_at}{floor}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(releases: &str) -> ReleaseIndex {
        let text = format!(
            r#"{{"serial":7,"issuedAt":"2026-01-01T00:00:00Z","expiresAt":"2026-02-01T00:00:00Z","releases":{{{releases}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn entry(version: &str, oldest: &str) -> String {
        let sum = "a".repeat(64);
        format!(r#""{version}":{{"manifestSha256":"sha256:{sum}","oldestFrom":"{oldest}"}}"#)
    }

    fn said(releases: &[(&str, &str)], version: &str) -> String {
        let releases: Vec<_> = releases.iter().map(|(version, oldest)| entry(version, oldest)).collect();
        let now = "2026-01-15T00:00:00Z".parse().unwrap();
        screen(&judge(&index(&releases.join(",")), version.parse().unwrap(), now))
            .lines()
            .next()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn what_there_is_and_the_way_to_it_is_said() {
        let releases = [("v1.1.0", "v1.0.0"), ("v2.0.0", "v1.1.0"), ("v3.0.0-rc.1", "v1.0.0")];
        assert_eq!(said(&releases, "v1.1.0"), "v2.0.0 is there");
        assert_eq!(said(&releases, "v1.0.0"), "v2.0.0 is there; the way leads by v1.1.0");
        assert_eq!(said(&releases, "v0.1.0"), "v2.0.0 is there, and no way leads to it from v0.1.0");
        assert_eq!(said(&releases, "v2.0.0"), "v2.0.0 is the newest");
        assert_eq!(said(&[], "v2.0.0"), "the index names no release");
    }

    #[test]
    fn an_index_that_holds_no_more_is_told() {
        let late = judge(&index(""), "v1.0.0".parse().unwrap(), "2027-01-01T00:00:00Z".parse().unwrap());
        assert!(late.expired && screen(&late).contains("expired at 2026-02-01"), "{}", screen(&late));
    }
}
