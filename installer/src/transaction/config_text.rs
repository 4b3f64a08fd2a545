//! `config.toml` as the installer leaves it: the documented sample with what the operator asked
//! for; a file that is there already is kept, comments and all. What the keys mean is
//! `aio_host::config`'s business.

use std::path::{Path, PathBuf};

use aio_host::config::{ConfigError, ConfigFile, UpdatesTable};
use aio_protocol::error_code::ErrorCode;

use crate::{failure::Failure, shipped::SAMPLE};

/// What the operator asked of the daemon on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Plain `http` and `ws` to other machines is allowed.
    pub insecure_http: bool,
    /// Another WebSocket endpoint than the token's.
    pub controller_endpoint: Option<String>,
    /// The proxy to the controller.
    pub proxy: Option<String>,
    /// Where the authorities lie that are trusted beside the operating system's.
    pub ca_file: Option<PathBuf>,
    /// The controller may update the node.
    pub auto_update: bool,
}

/// The text that the file at `path` must have, given what it holds now. Refuses a file that the
/// daemon would refuse, and one that says otherwise than the operator.
pub(crate) fn desired(path: &Path, existing: Option<&str>, settings: &Settings) -> Result<String, Failure> {
    let text = existing.unwrap_or(SAMPLE);
    let file = ConfigFile::parse(path, text).map_err(invalid)?;
    let mut wanted = Vec::new();
    match file.insecure_http {
        None if settings.insecure_http => wanted.push(("insecure_http", "true".to_owned())),
        Some(false) if settings.insecure_http => {
            return Err(contradiction(path, "insecure_http = false", "--insecure-http"));
        }
        _ => {}
    }
    let ca_file = settings.ca_file.as_ref().map(|path| path.display().to_string());
    let present_ca_file = file.ca_file.as_ref().map(|path| path.display().to_string());
    for (key, flag, asked, present) in [
        (
            "controller_endpoint",
            "--controller-endpoint",
            &settings.controller_endpoint,
            file.controller_endpoint,
        ),
        ("proxy", "--proxy, or HTTPS_PROXY,", &settings.proxy, file.proxy),
        ("ca_file", "--ca-file", &ca_file, present_ca_file),
    ] {
        match (asked, present) {
            // A JSON string is a TOML basic string.
            (Some(asked), None) => wanted.push((key, serde_json::Value::from(asked.as_str()).to_string())),
            (Some(asked), Some(present)) if *asked != present => {
                return Err(contradiction(path, &format!("{key} = \"{present}\""), flag));
            }
            _ => {}
        }
    }
    let text =
        wanted.into_iter().try_fold(text.to_owned(), |text, (key, value)| set(path, &text, key, &value))?;
    match file.updates.and_then(|updates| updates.mode).as_deref() {
        Some(AUTO) => Ok(text),
        Some(mode) if settings.auto_update => {
            Err(contradiction(path, &format!("mode = \"{mode}\" under [updates]"), "--auto-update"))
        }
        None if settings.auto_update => switch_updates_on(path, &text),
        _ => Ok(text),
    }
}

/// The mode in which the controller updates the node.
const AUTO: &str = "auto";

/// `text` with `mode = "auto"` under `[updates]`: in place of the commented sample of both, else at
/// the end.
fn switch_updates_on(path: &Path, text: &str) -> Result<String, Failure> {
    const TABLE: &str = "[updates]";
    let mode = format!("mode = \"{AUTO}\"\n");
    let mut lines: Vec<_> = text.split_inclusive('\n').map(str::to_owned).collect();
    let bare = |line: &str| line.trim().trim_start_matches('#').to_owned();
    match lines.iter().position(|line| bare(line) == TABLE) {
        Some(table) => {
            let of_table = lines.iter().skip(table + 1).take_while(|line| !bare(line).starts_with('['));
            let is_sample = |line: &String| {
                let assigned = line.strip_prefix('#').and_then(|rest| rest.split_once('='));
                assigned.is_some_and(|(name, _)| name.trim() == "mode")
            };
            let sample = of_table.clone().position(is_sample).map(|offset| table + 1 + offset);
            if let Some(line) = lines.get_mut(table) {
                *line = format!("{TABLE}\n");
            }
            match sample.and_then(|at| lines.get_mut(at)) {
                Some(line) => *line = mode.clone(),
                None => lines.insert(table + 1, mode.clone()),
            }
        }
        None => lines.push(format!("\n{TABLE}\n{mode}")),
    }
    let changed = lines.concat();
    let before = ConfigFile::parse(path, text).map_err(invalid)?;
    let updates = UpdatesTable { mode: Some(AUTO.to_owned()), ..before.updates.clone().unwrap_or_default() };
    let expected = ConfigFile { updates: Some(updates), ..before };
    if ConfigFile::parse(path, &changed).is_ok_and(|file| file == expected) {
        return Ok(changed);
    }
    let message = format!(
        "`{}` finds no place in {}; write it there by hand, under {TABLE}",
        mode.trim(),
        path.display()
    );
    Err(Failure::new(ErrorCode::ConfigInvalid, message).with("path", path.display().to_string()))
}

/// Whether a configuration names the controller's endpoint.
pub(crate) fn names_endpoint(text: &str) -> bool {
    ConfigFile::parse(Path::new(""), text).is_ok_and(|file| file.controller_endpoint.is_some())
}

/// `text` with `key = value`: in place of the commented sample of that key, else above the first
/// table, else at the end. Where a line stands in TOML (in a table, in a string of several lines)
/// is the parser's to say: the first place counts at which the key is read, and all else as before.
fn set(path: &Path, text: &str, key: &str, value: &str) -> Result<String, Failure> {
    let line = format!("{key} = {value}\n");
    let parse = |text: &str| ConfigFile::parse(path, text).map_err(invalid);
    let (before, added) = (parse(text)?, parse(&line)?);
    let expected = ConfigFile {
        insecure_http: added.insecure_http.or(before.insecure_http),
        controller_endpoint: added.controller_endpoint.or(before.controller_endpoint),
        proxy: added.proxy.or(before.proxy),
        ca_file: added.ca_file.or(before.ca_file),
        ..before
    };
    let is_right = |candidate: &String| parse(candidate).is_ok_and(|file| file == expected);
    let is_sample = |candidate: &str| {
        let assigned = candidate.strip_prefix('#').and_then(|rest| rest.split_once('='));
        assigned.is_some_and(|(name, _)| name.trim() == key)
    };
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let with = |place: std::ops::Range<usize>| {
        let (above, below) = (lines.get(..place.start).unwrap_or(&[]), lines.get(place.end..).unwrap_or(&[]));
        let mut above = above.concat();
        if !above.is_empty() && !above.ends_with('\n') {
            above.push('\n');
        }
        above + &line + &below.concat()
    };
    let numbered = || lines.iter().enumerate();
    let samples = numbered().filter(|(_, line)| is_sample(line)).map(|(index, _)| index..index + 1);
    let tables = numbered().filter(|(_, line)| line.trim_start().starts_with('[')).map(|(index, _)| {
        // What stands above a table without a gap is about the table.
        let about = lines.get(..index).unwrap_or(&[]).iter().rev().take_while(|line| line.starts_with('#'));
        let place = index - about.count();
        place..place
    });
    let end = std::iter::once(lines.len()..lines.len());
    samples.chain(tables).chain(end).map(with).find(is_right).ok_or_else(|| {
        let (path, line) = (path.display(), line.trim_end());
        let message =
            format!("`{line}` finds no place in {path}; write it there by hand, above the first table");
        Failure::new(ErrorCode::ConfigInvalid, message).with("path", path.to_string())
    })
}

fn contradiction(path: &Path, says: &str, flag: &str) -> Failure {
    let message = format!("{} says `{says}`, and the command says {flag}", path.display());
    Failure::new(ErrorCode::ConfigInvalid, message).with("path", path.display().to_string())
}

fn invalid(error: ConfigError) -> Failure {
    match error {
        ConfigError::Unreadable { path, source } => Failure::io("read", &path, &source),
        ConfigError::Invalid { path, source } => {
            let message = format!("{} is not a valid configuration: {}", path.display(), source.message());
            Failure::new(ErrorCode::ConfigInvalid, message)
                .with("path", path.display().to_string())
                .with("where", source.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(existing: Option<&str>, settings: &Settings) -> Result<String, Failure> {
        desired(Path::new("config.toml"), existing, settings)
    }

    #[test]
    fn a_machine_without_configuration_gets_the_sample() {
        assert_eq!(of(None, &Settings::default()).unwrap(), SAMPLE);
    }

    #[test]
    fn what_the_operator_asked_stands_where_the_sample_documents_it() {
        let settings = Settings {
            insecure_http: true,
            controller_endpoint: Some("ws://lab:1/\"x\"".to_owned()),
            proxy: Some("http://proxy.example:3128".to_owned()),
            ca_file: Some("/etc/aio-worker/ca.pem".into()),
            auto_update: true,
        };
        let text = of(None, &settings).unwrap();
        assert_eq!(text.lines().count(), SAMPLE.lines().count());
        let file = ConfigFile::parse(Path::new("x"), &text).unwrap();
        assert_eq!(file.insecure_http, Some(true));
        assert_eq!(file.proxy.as_deref(), Some("http://proxy.example:3128"));
        assert_eq!(file.ca_file.as_deref(), Some(Path::new("/etc/aio-worker/ca.pem")));
        assert_eq!(file.controller_endpoint.as_deref(), Some("ws://lab:1/\"x\""));
        assert_eq!(of(Some(&text), &settings).unwrap(), text, "a second run changes nothing");
    }

    #[test]
    fn an_existing_file_is_kept_and_a_key_added_at_its_end() {
        let mine = "# mine\nlog = \"debug\"\n";
        assert_eq!(of(Some(mine), &Settings::default()).unwrap(), mine);
        let settings = Settings { insecure_http: true, ..Settings::default() };
        assert_eq!(of(Some(mine), &settings).unwrap(), format!("{mine}insecure_http = true\n"));
    }

    #[test]
    fn updates_are_switched_on_in_their_table_and_never_against_what_the_file_says() {
        let settings = Settings { auto_update: true, ..Settings::default() };
        for (mine, expected) in [
            ("log = \"debug\"\n", "log = \"debug\"\n\n[updates]\nmode = \"auto\"\n"),
            ("[updates]\npin = \"v1.0.0\"\n", "[updates]\nmode = \"auto\"\npin = \"v1.0.0\"\n"),
            ("[updates]\n# x\n#mode = \"off\"\n[health]\n", "[updates]\n# x\nmode = \"auto\"\n[health]\n"),
            ("[updates]\nmode = \"auto\"\n", "[updates]\nmode = \"auto\"\n"),
        ] {
            assert_eq!(of(Some(mine), &settings).unwrap(), expected);
            assert_eq!(
                of(Some(mine), &Settings::default()).unwrap(),
                mine,
                "who asks for nothing gets nothing"
            );
        }
        let refused = of(Some("[updates]\nmode = \"notify\"\n"), &settings).unwrap_err();
        assert_eq!(refused.code, ErrorCode::ConfigInvalid);
    }

    #[test]
    fn a_key_is_added_above_the_tables_wherever_these_stand() {
        let settings =
            Settings { proxy: Some("http://proxy.example:3128".to_owned()), ..Settings::default() };
        let line = "proxy = \"http://proxy.example:3128\"\n";
        for (above, below) in [
            ("", "[health]\nexpected_gpus = 8\n"),
            ("log = \"debug\"\n\n", "# When a GPU is too hot.\n[health]\nexpected_gpus = 8\n"),
            ("log = \"debug\"\n", "  [health]  # mine\n#proxy = \"http://sample\"\n"),
            // Neither a table nor a sample, but a string.
            ("log = \"\"\"\n[health]\n#proxy = x\n\"\"\"\n", "[health]\n"),
            ("log = \"debug\"\r\n", "[health]\r\nexpected_gpus = 8\r\n"),
            ("log = \"debug\"\n", ""),
            ("", ""),
        ] {
            let mine = format!("{above}{below}");
            let Ok(_) = ConfigFile::parse(Path::new("x"), &mine) else { panic!("{mine}") };
            let text = of(Some(&mine), &settings).unwrap();
            assert_eq!(text, format!("{above}{line}{below}"));
            assert_eq!(of(Some(&text), &settings).unwrap(), text, "a second run changes nothing");
        }
        let unended = of(Some("log = \"debug\""), &settings).unwrap();
        assert_eq!(unended, format!("log = \"debug\"\n{line}"));
    }

    #[test]
    fn an_unknown_key_and_a_contradiction_are_refused_by_name() {
        let unknown = of(Some("contoller_endpoint = \"x\"\n"), &Settings::default()).unwrap_err();
        assert_eq!(unknown.code, ErrorCode::ConfigInvalid);
        assert!(unknown.message.contains("contoller_endpoint"), "{}", unknown.message);
        let settings = Settings { insecure_http: true, ..Settings::default() };
        let contrary = of(Some("insecure_http = false\n"), &settings).unwrap_err();
        assert!(contrary.message.contains("--insecure-http"), "{}", contrary.message);
    }
}
