//! Commands inside a machine: entered with `nsenter`, with an environment of their own and a time limit.

use std::{
    fmt,
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command to be run inside a machine, as root unless it changes that itself.
#[derive(Debug)]
pub struct Inside {
    leader: u32,
    words: Vec<String>,
    environment: Vec<(String, String)>,
    input: Vec<u8>,
    bound: Duration,
}

impl Inside {
    pub(super) fn new(leader: u32, program: &str) -> Self {
        Self {
            leader,
            words: vec![program.to_owned()],
            environment: vec![("PATH".to_owned(), PATH.to_owned()), ("HOME".to_owned(), "/root".to_owned())],
            input: Vec::new(),
            bound: Duration::from_secs(60),
        }
    }

    pub(super) fn entrance(leader: u32) -> Vec<String> {
        let leader = leader.to_string();
        let path = format!("PATH={PATH}");
        let words = [
            "nsenter",
            "--target",
            &leader,
            "--all",
            "--",
            "env",
            "--ignore-environment",
            &path,
            "HOME=/root",
        ];
        words.map(str::to_owned).into()
    }

    /// Adds arguments.
    pub fn args<S: AsRef<str>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.words.extend(arguments.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Sets a variable; `PATH` and `HOME` are the only others.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives the command something to read.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Ends the command after this time; it then fails with status 124.
    pub fn bound(mut self, bound: Duration) -> Self {
        self.bound = bound;
        self
    }

    /// Runs the command to its end, whatever that is.
    pub fn run(self) -> Result<Outcome> {
        let line = self.words.join(" ");
        let mut child = Command::new("nsenter")
            .args(["--target", &self.leader.to_string(), "--all", "--", "timeout", "--kill-after=5"])
            .arg(self.bound.as_secs().max(1).to_string())
            .args(&self.words)
            .env_clear()
            .envs(self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run nsenter")?;
        let mut stdin = child.stdin.take();
        let input = self.input;
        // On a thread of its own: a command may write much before it has read everything.
        let writer = std::thread::spawn(move || stdin.as_mut().map(|stdin| stdin.write_all(&input)));
        let output = child.wait_with_output().with_context(|| format!("cannot wait for `{line}`"))?;
        // A command may end without reading everything; that is its own affair.
        let _ = writer.join();
        Ok(Outcome {
            line,
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs the command; gives what it printed, or an error unless it exits with 0.
    pub fn read(self) -> Result<String> {
        let outcome = self.run()?;
        ensure!(outcome.status == Some(0), "{outcome}");
        Ok(outcome.stdout)
    }
}

/// How a command ended, and what it printed.
#[derive(Debug, Clone)]
pub struct Outcome {
    line: String,
    /// Its exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` ended with {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.line, self.status, self.stdout, self.stderr
        )
    }
}
