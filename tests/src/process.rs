//! A program under test as an ordinary process: told to end when asked, ended in any case when
//! dropped, its log kept for messages.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::wait_for;

const GOODBYE: Duration = Duration::from_secs(15);

/// A process that runs; whoever drops it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `command` with nothing of this process's environment but the search path, and its
    /// standard error in `log`. A group of its own keeps a Ctrl-C on the terminal from it: who
    /// started it ends it, in order.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let variables: Vec<_> = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        let child = command
            .env_clear()
            .env("PATH", path)
            .env("NO_COLOR", "1")
            .envs(variables)
            .process_group(0)
            .stdin(Stdio::null())
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process without id")?;
        kill_process(pid, signal).context("cannot signal the process")
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        let child = &mut self.child;
        wait_for("the process to end after SIGTERM", GOODBYE, || Ok(child.try_wait()?), Option::is_some)
            .with_context(|| log_tail(&self.log))?
            .context("no exit status")
    }

    pub(crate) fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("cannot read {}", self.log.display()))
    }

    pub(crate) fn log_tail(&self) -> String {
        log_tail(&self.log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let tail = lines.split_at(lines.len().saturating_sub(30)).1;
    format!("its log ends:\n{}", tail.join("\n"))
}
