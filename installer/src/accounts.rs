//! The daemon's user: whether it is there, made after our declaration by `systemd-sysusers`, and taken away again. Its files are edited
//! by the system's own tools, because others edit them too. Who decides that is `step/create_user`.

use std::{path::Path, pin::Pin, process::Stdio, time::Duration};

use aio_protocol::error_code::ErrorCode;
use tokio::{process::Command, time::timeout};

use crate::failure::Failure;

/// For one tool; they wait for each other on a lock of the system.
const PATIENCE: Duration = Duration::from_secs(30);

/// What an account tool's run comes to.
pub type Ran<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// Who edits the system's accounts.
pub trait Accounts {
    /// Makes the user and group that the sysusers file at `declaration` names, unless they are there.
    fn create<'a>(&'a self, declaration: &'a Path) -> Ran<'a>;
    /// Takes a user away.
    fn remove_user<'a>(&'a self, name: &'a str) -> Ran<'a>;
    /// Takes a group away.
    fn remove_group<'a>(&'a self, name: &'a str) -> Ran<'a>;
}

/// The real system's tools.
#[derive(Debug, Clone, Copy)]
pub struct SystemAccounts;

impl Accounts for SystemAccounts {
    fn create<'a>(&'a self, declaration: &'a Path) -> Ran<'a> {
        Box::pin(run("systemd-sysusers", declaration))
    }

    fn remove_user<'a>(&'a self, name: &'a str) -> Ran<'a> {
        Box::pin(run("userdel", Path::new(name)))
    }

    fn remove_group<'a>(&'a self, name: &'a str) -> Ran<'a> {
        Box::pin(run("groupdel", Path::new(name)))
    }
}

async fn run(tool: &'static str, argument: &Path) -> Result<(), Failure> {
    let failed = |why: String| {
        let message = format!("`{tool} {}` {why}", argument.display());
        Failure::new(ErrorCode::FileFailed, message).with("tool", tool)
    };
    // Nothing of our environment: it may hold the token.
    let child = Command::new(tool)
        .arg(argument)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, child)
        .await
        .map_err(|_| failed(format!("did not end within {} s", PATIENCE.as_secs())))?
        .map_err(|error| failed(format!("could not be run: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("ended with {}: {}", output.status, said.trim())))
}

/// Whether a line of `passwd` or `group` form in `text` is `name`'s.
pub(crate) fn lists(text: &str, name: &str) -> bool {
    text.lines().any(|line| line.split(':').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\naio-worker:x:999:999::/:/usr/sbin/nologin\n";
        assert!(lists(passwd, "aio-worker"));
        assert!(!lists(passwd, "aio"));
        assert!(!lists(passwd, "x"));
    }
}
