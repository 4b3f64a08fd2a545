//! For tests: one test again in a mount namespace of its own, where what it mounts is nobody else's.
//! Needs root and `unshare`.

use std::{
    env, fs,
    io::{self, Error},
    process::{self, Command},
};

/// Says to the test's own program that it runs in the namespace.
const INSIDE: &str = "AIO_TEST_IN_NAMESPACE";

/// Mounts the file `$1` over `/etc/hosts`, then becomes the rest of its arguments.
const WITH_HOSTS: &str = r#"mount --bind "$1" /etc/hosts && shift && exec "$@""#;

/// Where a test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the namespace: this is the test.
    Inside,
    /// Outside: the test has passed inside.
    Passed,
    /// Outside, and there can be no namespace: nothing was tested, which standard error says.
    Impossible,
}

/// Runs the test of this name again in a mount namespace, where `/etc/hosts` says what `hosts` says.
/// An error where it fails there.
pub fn run_inside(test: &str, hosts: Option<&str>) -> io::Result<Place> {
    if env::var_os(INSIDE).is_some() {
        return Ok(Place::Inside);
    }
    let possible = Command::new("unshare").args(["--mount", "true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {test} needs root and a mount namespace; nothing was tested");
        return Ok(Place::Impossible);
    }
    let file = env::temp_dir().join(format!("aio-test-hosts-{}", process::id()));
    let mut command = Command::new("unshare");
    command.arg("--mount").env(INSIDE, "1");
    if let Some(hosts) = hosts {
        fs::write(&file, hosts)?;
        command.args(["sh", "-c", WITH_HOSTS, "sh"]).arg(&file);
    }
    let status = command.arg(env::current_exe()?).args(["--exact", test, "--nocapture"]).status();
    if hosts.is_some() {
        fs::remove_file(&file)?;
    }
    match status? {
        status if status.success() => Ok(Place::Passed),
        status => Err(Error::other(format!("{test} in a mount namespace: {status}"))),
    }
}
