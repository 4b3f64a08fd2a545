//! One command of a list: shown as a person would type it, run in the repository's root, and an
//! error unless it succeeds.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find the running program")?;
    let target = program.ancestors().nth(2).context("the running program lies in no target folder")?;
    Ok(target.to_owned())
}

/// The cargo that runs this, or the one on the path.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// The runner of tests, over all crates.
pub(crate) fn nextest() -> Command {
    // Tests wait for others' work more than they work.
    let threads = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let mut nextest = cargo(&["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]);
    nextest.args(["--test-threads", &threads.to_string()]);
    // Neighbours of a virtual machine may take its processors for seconds. What passes at the second try is told
    // as flaky.
    nextest.args(["--retries", "1"]);
    nextest
}

/// Another program.
pub(crate) fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).current_dir(root());
    command
}

/// A program that was built.
pub(crate) fn of_path(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.current_dir(root());
    command
}

/// A tool of cargo's that is no part of Rust, in a version that is known to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    /// The crate and its program.
    pub(crate) name: &'static str,
    /// Its version.
    pub(crate) version: &'static str,
}

impl Tool {
    /// The program, in the target folder; built there the first time. Without optimisation: it is
    /// run more seldom than built.
    pub(crate) fn installed(self) -> Result<PathBuf> {
        let folder = target_dir()?.join(format!("tools/{}-{}", self.name, self.version));
        let program = folder.join("bin").join(self.name);
        if !program.is_file() {
            eprintln!("xtask: {} {} is missing and will be built, once", self.name, self.version);
            let mut install =
                cargo(&["install", "--locked", "--debug", self.name, "--version", self.version]);
            install.args(["--no-track", "--root"]).arg(&folder);
            // Not into this repository's target folder: its locks are held by who runs this.
            install.env_remove("CARGO_TARGET_DIR");
            run(&mut install)?;
        }
        Ok(program)
    }
}

/// When the commit that is checked out was made, in seconds since 1970: the date of all that is made of it.
pub(crate) fn commit_time() -> Result<String> {
    let time = program("git", &["log", "-1", "--format=%ct"]).output().context("cannot run git")?;
    let time = String::from_utf8(time.stdout).context("git says no text")?.trim().to_owned();
    ensure!(!time.is_empty(), "git does not say when the commit was made: this needs a clone, not a copy");
    Ok(time)
}

/// Shows and runs a command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    eprintln!("xtask: {line}");
    let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
    ensure!(status.success(), "`{line}` ended with {status}");
    Ok(())
}

/// Does one thing beside another, and waits for both.
pub(crate) fn beside<T>(
    one: impl FnOnce() -> Result<()> + Send,
    other: impl FnOnce() -> Result<T>,
) -> Result<T> {
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        match one.join() {
            Ok(one) => one.and(other),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Shows a command and becomes it: its last line is the last line, its exit status ours, and a
/// Ctrl-C its alone. Returns only when it cannot be run.
pub(crate) fn become_it(command: &mut Command) -> Result<()> {
    let line = shown(command);
    eprintln!("xtask: {line}");
    Err(command.exec()).with_context(|| format!("cannot run `{line}`"))
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words = vec![program.file_name().unwrap_or(program.as_os_str()).display().to_string()];
    words.extend(command.get_args().map(|word| word.display().to_string()));
    let variables = command.get_envs().filter_map(|(name, value)| Some((name.display(), value?.display())));
    let variables: String = variables.map(|(name, value)| format!("{name}='{value}' ")).collect();
    format!("{variables}{}", words.join(" "))
}

/// Whether a program is installed.
pub(crate) fn installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // An ordinary user's path seldom has the folders of root's programs.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).any(|folder| folder.join(name).is_file())
}
