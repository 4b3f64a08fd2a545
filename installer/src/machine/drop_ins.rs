//! What drop-ins take from the worker's service. Managers of containers (LXC, Incus) write one for
//! every service that there is, admins one for ours. Names what is gone and the drop-in that did
//! it; decides nothing.

use std::{fs, path::PathBuf};

use aio_host::{layout::USER, systemd::ServiceSettings};

/// The name of the credential that holds the token.
const TOKEN: &str = "token";

/// What the unit gives the service and `settings` lack, each with the drop-in that took it.
pub(crate) fn taken_away(settings: &ServiceSettings) -> Vec<String> {
    let has = |names: &[String], name: &str| names.iter().any(|present| present == name);
    let kept = [
        ("LoadCredential", has(&settings.credentials, TOKEN)),
        ("RuntimeDirectory", has(&settings.runtime_directories, USER)),
        ("StateDirectory", has(&settings.state_directories, USER)),
        ("User", settings.user == USER),
    ];
    let lost = kept.into_iter().filter(|(_, kept)| !kept);
    lost.map(|(key, _)| match culprit(&settings.drop_ins, key) {
        Some(path) => format!("{} takes {key}= from the unit", path.display()),
        None => format!("a drop-in takes {key}= from the unit"),
    })
    .collect()
}

/// The last drop-in that sets `key`.
fn culprit<'a>(drop_ins: &'a [PathBuf], key: &str) -> Option<&'a PathBuf> {
    drop_ins.iter().rev().find(|path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut names = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name.trim());
        names.any(|name| name == key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drop_in_that_takes_something_away_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let lxc = dir.path().join("zzz-lxc-service.conf");
        fs::write(&lxc, "[Service]\nProtectProc=default\nLoadCredential=\n").unwrap();
        let mine = dir.path().join("mine.conf");
        fs::write(&mine, "[Service]\nNice=5\nUser = worker\n").unwrap();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut settings = ServiceSettings {
            drop_ins: vec![mine.clone(), lxc.clone()],
            user: USER.to_owned(),
            credentials: names(&["other", TOKEN]),
            runtime_directories: names(&[USER, "more"]),
            state_directories: names(&[USER]),
        };
        assert_eq!(taken_away(&settings), [""; 0]);
        settings.credentials.clear();
        settings.user = "worker".to_owned();
        settings.state_directories.clear();
        let expected = [
            format!("{} takes LoadCredential= from the unit", lxc.display()),
            "a drop-in takes StateDirectory= from the unit".to_owned(),
            format!("{} takes User= from the unit", mine.display()),
        ];
        assert_eq!(taken_away(&settings), expected);
    }
}
