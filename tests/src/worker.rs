//! A worker as an ordinary process, without an installation: its token, state and runtime folders
//! are its own.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{artifacts::Artifacts, process::Running};

/// A worker that runs.
#[derive(Debug)]
pub struct Worker {
    process: Running,
    folder: TempDir,
}

impl Worker {
    /// Starts `aio-worker start` with this token and, if given, another GPU library and its variables.
    pub fn start(artifacts: &Artifacts, token: &str, environment: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let token_file = folder.path().join("token");
        fs::write(&token_file, token)?;
        fs::set_permissions(&token_file, fs::Permissions::from_mode(0o600))?;
        let mut command = Command::new(artifacts.worker()?);
        command.arg("start").arg("--token-file").arg(&token_file);
        for (flag, name) in [("--state-dir", "state"), ("--runtime-dir", "runtime")] {
            let path = folder.path().join(name);
            fs::create_dir(&path)?;
            command.arg(flag).arg(path);
        }
        // Not the configuration of this computer, if it has one.
        let config = folder.path().join("config.toml");
        fs::write(&config, "")?;
        command.arg("--config").arg(config);
        command.envs(environment.iter().copied()).stdout(Stdio::null());
        let process = Running::start(&mut command, &folder.path().join("worker.log"))?;
        Ok(Self { process, folder })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// The folder of its status socket.
    pub fn runtime_dir(&self) -> PathBuf {
        self.folder.path().join("runtime")
    }

    /// The folder of its state.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.child.try_wait()?.is_some())
    }

    /// SIGKILL: no goodbye.
    pub fn kill(self) -> Result<()> {
        self.process.signal(Signal::KILL)
    }

    /// SIGTERM, and how it ended.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.process.stop()
    }

    /// The last lines of its log, for messages of failed tests.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}

/// A field of `/proc/<pid>/status`, e.g. `VmRSS` or `Threads`, without its unit.
pub fn status_field(status: &str, field: &str) -> Result<String> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .and_then(|value| value.split_whitespace().next())
        .map(str::to_owned)
        .with_context(|| format!("{field} is missing in /proc/<pid>/status"))
}
