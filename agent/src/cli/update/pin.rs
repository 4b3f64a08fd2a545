//! `aio-worker update pin` and `unpin`: writes the key into the configuration, comments and all else
//! as they were, and has the running daemon read it. The text is the library's to judge: a change is
//! written only if the key reads as wanted and every other as before.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use aio_host::{
    config::{ConfigFile, UpdatesTable},
    files::{self, FileError},
    layout::{Layout, UNIT},
    systemd::Systemd,
};
use aio_installer::cli::{Failure, Output, print};
use aio_protocol::{error_code::ErrorCode, release::ReleaseVersion};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::status::of_root;
use crate::cli::answer::{Answer, print_json, runtime};

/// For one call to systemd.
const BUS_PATIENCE: Duration = Duration::from_secs(5);

const TABLE: &str = "[updates]";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Writes `pin` under [updates] into the configuration, and reloads the daemon. While it stands there, offers of other versions are refused.

Exit status: 0; 77 not root; 78 the version is below the floor, or the key finds no place in the file.")]
pub(super) struct PinArguments {
    /// The version, e.g. v1.0.0 [default: this one]
    #[arg(value_name = "VERSION")]
    version: Option<ReleaseVersion>,
    /// The configuration [default: /etc/aio-worker/config.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) answer: Answer,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status: 0; 77 not root; 78 the key cannot be taken out of the file.")]
pub(super) struct UnpinArguments {
    /// The configuration [default: /etc/aio-worker/config.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) answer: Answer,
}

pub(super) fn pin(arguments: &PinArguments) -> Result<(), Failure> {
    let version = arguments.version.clone().unwrap_or_else(ReleaseVersion::running);
    let floor = of_root(&Layout::default().update_status())?.floor;
    if let Some(floor) = floor.filter(|floor| version < *floor) {
        let message = format!("{version} is older than {floor}, the oldest that the index allows");
        return Err(Failure::new(ErrorCode::UpdateBelowFloor, message));
    }
    let reloaded = change(arguments.config.as_deref(), Some(&version))?;
    let words = format!("this node stays at {version}{}\n", afterwards(reloaded));
    answer(arguments.answer, Some(&version), reloaded, &words)
}

pub(super) fn unpin(arguments: &UnpinArguments) -> Result<(), Failure> {
    let reloaded = change(arguments.config.as_deref(), None)?;
    let words = format!("this node is pinned to no version{}\n", afterwards(reloaded));
    answer(arguments.answer, None, reloaded, &words)
}

fn afterwards(reloaded: bool) -> &'static str {
    if reloaded {
        ""
    } else {
        "; the daemon that runs, if one does, has to be reloaded: systemctl reload aio-worker"
    }
}

fn answer(how: Answer, pin: Option<&ReleaseVersion>, reloaded: bool, words: &str) -> Result<(), Failure> {
    match how.output {
        Output::Json => print_json(&json!({ "pin": pin, "reloaded": reloaded })),
        Output::Text => print(words),
    }
}

/// Writes the key, or takes it out; gives whether the daemon was told to read it.
fn change(config: Option<&Path>, pin: Option<&ReleaseVersion>) -> Result<bool, Failure> {
    let usual = Layout::default().config();
    let path = config.unwrap_or(&usual);
    let (text, mode) = match fs::read_to_string(path) {
        Ok(text) => (text, fs::metadata(path).map_or(0o644, |metadata| metadata.mode() & 0o777)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && config.is_none() => (String::new(), 0o644),
        Err(error) => return Err(unread(path, &error)),
    };
    let changed = with_pin(path, &text, pin)?;
    if changed == text {
        return Ok(config.is_none() && reload());
    }
    let owner = fs::metadata(path).map(|metadata| (metadata.uid(), metadata.gid())).ok();
    files::replace_file(path, changed.as_bytes(), mode).map_err(unwritten)?;
    // Who reads a configuration with a password in it goes on reading it.
    if let Some((uid, gid)) = owner {
        files::own(path, uid, gid, mode).map_err(unwritten)?;
    }
    Ok(config.is_none() && reload())
}

fn unread(path: &Path, error: &io::Error) -> Failure {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    let code = if denied { ErrorCode::NotRoot } else { ErrorCode::FileFailed };
    Failure::new(code, format!("could not read {}: {error}", path.display()))
}

fn unwritten(error: FileError) -> Failure {
    let code = if error.is_permission() { ErrorCode::NotRoot } else { ErrorCode::FileFailed };
    Failure::new(code, format!("{error}: {}", error.source))
}

/// Has the service's process read its configuration; false where there is none, or nobody says so.
fn reload() -> bool {
    let unit = async { Systemd::connect_within(BUS_PATIENCE).await?.unit(UNIT).await };
    let unit = runtime().ok().and_then(|runtime| runtime.block_on(unit).ok());
    let process = unit.and_then(|unit| Pid::from_raw(i32::try_from(unit.main_pid?).ok()?));
    process.is_some_and(|process| kill_process(process, Signal::HUP).is_ok())
}

/// `text` with the key under `[updates]`, in place of the one that is there or of its commented
/// sample; without a version, with the key as a comment.
fn with_pin(path: &Path, text: &str, pin: Option<&ReleaseVersion>) -> Result<String, Failure> {
    let parse = |text: &str| {
        ConfigFile::parse(path, text).map_err(|error| Failure::caused(ErrorCode::ConfigInvalid, &error))
    };
    let before = parse(text)?;
    let updates = before.updates.clone().unwrap_or_default();
    let wanted = UpdatesTable { pin: pin.map(ToString::to_string), ..updates.clone() };
    if wanted == updates {
        return Ok(text.to_owned());
    }
    let changed = rewrite(text, pin);
    if parse(&changed).is_ok_and(|after| after == ConfigFile { updates: Some(wanted), ..before }) {
        return Ok(changed);
    }
    let message =
        format!("`pin` finds no place in {}; write it there by hand, under {TABLE}", path.display());
    Err(Failure::new(ErrorCode::ConfigInvalid, message))
}

fn rewrite(text: &str, pin: Option<&ReleaseVersion>) -> String {
    let mut lines: Vec<_> = text.split_inclusive('\n').map(str::to_owned).collect();
    if let Some(last) = lines.last_mut()
        && !last.ends_with('\n')
    {
        last.push('\n');
    }
    let bare = |line: &str| line.trim_start().trim_start_matches('#').trim().to_owned();
    let is_key = |line: &str| bare(line).split_once('=').is_some_and(|(name, _)| name.trim() == "pin");
    let is_comment = |line: &str| line.trim_start().starts_with('#');
    let table = lines.iter().position(|line| bare(line) == TABLE);
    let keys = |lines: &[String], table: usize| {
        let of_table =
            lines.iter().enumerate().skip(table + 1).take_while(|(_, line)| !bare(line).starts_with('['));
        of_table.filter(|(_, line)| is_key(line)).map(|(at, line)| (at, is_comment(line))).collect::<Vec<_>>()
    };
    match (table, pin) {
        (Some(table), Some(version)) => {
            let line = format!("pin = \"{version}\"\n");
            let found = keys(&lines, table);
            // The one that counts, or else the sample.
            let place = found.iter().find(|(_, comment)| !comment).or(found.first()).map(|(at, _)| *at);
            match place.and_then(|at| lines.get_mut(at)) {
                Some(place) => *place = line,
                None => lines.insert(table + 1, line),
            }
            if let Some(heading) = lines.get_mut(table) {
                *heading = format!("{TABLE}\n");
            }
        }
        (Some(table), None) => {
            for (at, _) in keys(&lines, table).into_iter().filter(|(_, comment)| !comment) {
                if let Some(line) = lines.get_mut(at) {
                    *line = format!("#{}", line.trim_start());
                }
            }
        }
        (None, Some(version)) => lines.push(format!("\n{TABLE}\npin = \"{version}\"\n")),
        (None, None) => {}
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../../../packaging/config.toml");

    fn pinned(text: &str, pin: Option<&str>) -> Result<String, ErrorCode> {
        let version = pin.map(|pin| pin.parse().unwrap());
        with_pin(Path::new("config.toml"), text, version.as_ref()).map_err(|failure| failure.code)
    }

    fn read(text: &str) -> UpdatesTable {
        ConfigFile::parse(Path::new("config.toml"), text).unwrap().updates.unwrap_or_default()
    }

    #[test]
    fn a_pin_is_written_where_the_sample_has_it_and_taken_out_again() {
        let with = pinned(SAMPLE, Some("v1.2.0")).unwrap();
        assert_eq!(read(&with).pin.as_deref(), Some("v1.2.0"));
        assert_eq!(with.lines().count(), SAMPLE.lines().count());
        let other = pinned(&with, Some("v1.3.0")).unwrap();
        assert_eq!(other, with.replace("v1.2.0", "v1.3.0"));
        let without = pinned(&other, None).unwrap();
        assert_eq!(read(&without), UpdatesTable::default());
        assert_eq!(pinned(&without, None).unwrap(), without, "there is nothing left to take out");
    }

    #[test]
    fn a_pin_finds_its_place_whatever_else_is_there() {
        for text in [
            "",
            "log = \"debug\"",
            "[health]\nxid_hours = 1\n",
            "[updates]\nmode = \"auto\"\n",
            "[updates]\nmode = \"auto\"\n#pin = \"v0.1.0\"\npin = \"v0.2.0\"\n[health]\nxid_hours = 1\n",
        ] {
            let with = pinned(text, Some("v1.2.0")).unwrap();
            assert_eq!(read(&with).pin.as_deref(), Some("v1.2.0"), "{with}");
            assert_eq!(read(&with).mode, read(text).mode);
            assert_eq!(read(&pinned(&with, None).unwrap()).pin, None);
        }
    }

    #[test]
    fn where_a_pin_finds_no_place_nothing_is_changed() {
        for text in ["updates = { mode = \"auto\" }\n", "log = \"x\"\n= ="] {
            assert_eq!(pinned(text, Some("v1.2.0")), Err(ErrorCode::ConfigInvalid), "{text}");
        }
    }
}
