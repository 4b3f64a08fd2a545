//! `cargo xtask ci`: what must hold before a change is merged. The quick checks come first, the tests last.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::{
    packages, step,
    test::{self, Arguments},
};

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    packages::install(&[packages::CHECKERS, packages::BROWSER])?;
    step::run(&mut step::cargo(&["fmt", "--all", "--check"]))?;
    shellcheck()?;
    step::run(&mut step::cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "--deny",
        "warnings",
    ]))?;
    // The core alone, as who needs no pages builds it.
    let core = ["clippy", "--locked", "--package", "controller-stub", "--no-default-features"];
    step::run(step::cargo(&core).args(["--", "--deny", "warnings"]))?;
    let mut doc = step::cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
    step::run(doc.env("RUSTDOCFLAGS", "--deny warnings"))?;
    step::run(&mut step::cargo(&[
        "test",
        "--locked",
        "--package",
        "aio-tests",
        "--test",
        "system",
        "architecture",
    ]))?;
    audit()?;
    test::run(arguments)
}

/// Every shell script of the repository, known by its first line.
fn shellcheck() -> Result<()> {
    let files = step::program("git", &["ls-files", "--cached", "--others", "--exclude-standard"]).output()?;
    ensure!(
        files.status.success(),
        "cannot list the repository's files: {}",
        String::from_utf8_lossy(&files.stderr)
    );
    let files = String::from_utf8(files.stdout).context("a file's name is no text")?;
    let scripts: Vec<_> = files.lines().filter(|file| is_shell(file)).collect();
    step::run(step::program("shellcheck", &[]).args(scripts))
}

fn is_shell(file: &str) -> bool {
    let Ok(text) = fs::read_to_string(step::root().join(file)) else { return false };
    // A template is checked as what it makes, by the tests of who fills it in.
    let first = text.lines().next().unwrap_or_default();
    let shell = ["sh", "bash"]
        .iter()
        .any(|shell| first.ends_with(&format!("/{shell}")) || first.ends_with(&format!(" {shell}")));
    first.starts_with("#!") && shell && !text.contains("{{")
}

/// Licences, sources and known faults of dependencies, as far as the tool and its data can be had here.
fn audit() -> Result<()> {
    if !step::installed("cargo-deny") {
        eprintln!(
            "xtask: NOT CHECKED: licences, sources and known faults of dependencies, because cargo-deny is not installed"
        );
        return Ok(());
    }
    let config = step::root().join("xtask/deny.toml").display().to_string();
    let deny = |words: &[&str]| {
        let mut command = step::cargo(&["deny"]);
        command.args(["--config", &config]).args(words);
        command
    };
    step::run(&mut deny(&["check", "bans", "licenses", "sources"]))?;
    let fetched = deny(&["fetch", "db"]).output().context("cannot run cargo-deny")?;
    if fetched.status.success() {
        step::run(&mut deny(&["check", "advisories"]))
    } else {
        let why = String::from_utf8_lossy(&fetched.stderr);
        eprintln!(
            "xtask: NOT CHECKED: known faults of dependencies, because their database cannot be fetched: {}",
            why.trim()
        );
        Ok(())
    }
}
