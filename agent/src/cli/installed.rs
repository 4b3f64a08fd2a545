//! Which worker is installed as the service's program: the release under `current`, or the
//! package's. Says nothing of the one that runs.

use std::{path::Path, process::Stdio, time::Duration};

use aio_host::layout::Layout;
use aio_protocol::release::ReleaseVersion;
use serde_json::Value;
use tokio::{process::Command, time::timeout};

/// A program on a disk that works says its version at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// The version that the service would start with, without `v`, e.g. `1.2.0`; none where that is not
/// to be found out.
pub(super) async fn version(layout: &Layout) -> Option<String> {
    // The order of the search path that the service has: /usr/local before /usr.
    if layout.command().symlink_metadata().is_ok() {
        return released(layout);
    }
    let program = layout.packaged_command();
    if program.exists() { timeout(PATIENCE, told_by(&program)).await.ok().flatten() } else { None }
}

/// A release's folder is named after its version.
fn released(layout: &Layout) -> Option<String> {
    let target = std::fs::read_link(layout.current()).ok()?;
    let version: ReleaseVersion = target.file_name()?.to_str()?.parse().ok()?;
    Some(version.to_string().trim_start_matches('v').to_owned())
}

/// A package's folder is not, so the program is asked.
async fn told_by(program: &Path) -> Option<String> {
    let output = Command::new(program)
        .args(["version", "--output", "json"])
        // Nothing of our environment: it may hold the token.
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
    answer.get("version")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    #[tokio::test]
    async fn the_release_under_current_counts_before_a_package() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        assert_eq!(version(&layout).await, None, "nothing is installed");

        let program = layout.packaged_command();
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "#!/bin/sh\necho '{\"version\": \"1.1.0\"}'\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(version(&layout).await.as_deref(), Some("1.1.0"));

        fs::create_dir_all(layout.releases()).unwrap();
        fs::create_dir_all(layout.command().parent().unwrap()).unwrap();
        symlink("v1.2.0-rc.1", layout.current()).unwrap();
        symlink(layout.current().join("aio-worker"), layout.command()).unwrap();
        assert_eq!(version(&layout).await.as_deref(), Some("1.2.0-rc.1"));
    }

    #[tokio::test]
    async fn a_program_that_says_nothing_useful_is_of_no_version() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        let program = layout.packaged_command();
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "no program").unwrap();
        assert_eq!(version(&layout).await, None);
    }
}
