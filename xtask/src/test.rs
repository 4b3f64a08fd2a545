//! `cargo xtask test`: installs what the tests need, builds what they run, and runs them. The runner's summary comes last.

use anyhow::Result;

use crate::{packages, step};

/// Which tests.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leave out the tests that boot systemd containers, which take root
    #[arg(long)]
    no_lab: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.no_lab {
        eprintln!(
            "xtask: --no-lab: the tests under lab:: are left out, so nothing is said about real systemd"
        );
        packages::install(&[packages::CHECKERS])?;
    } else {
        packages::install(&[packages::LAB, packages::CHECKERS])?;
    }
    // Whole-system tests run what is shipped, and the fake driver beside it.
    step::run(&mut step::cargo(&["build", "--release", "--locked"]))?;
    let installer = ["build", "--profile", "installer", "--locked", "--package", "aio-installer"];
    step::run(&mut step::cargo(&installer))?;
    step::run(&mut step::cargo(&["build", "--release", "--locked", "--package", "fake-nvml"]))?;
    if step::installed("cargo-nextest") {
        // nextest runs no documentation tests.
        step::run(&mut step::cargo(&["test", "--workspace", "--locked", "--doc", "--quiet"]))?;
        let mut nextest = step::cargo(&["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]);
        nextest.args(arguments.no_lab.then_some(["--filterset", "not test(/^lab::/)"]).into_iter().flatten());
        step::become_it(&mut nextest)
    } else {
        let mut test = step::cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
        test.args(arguments.no_lab.then_some(["--", "--skip", "lab::"]).into_iter().flatten());
        step::become_it(&mut test)
    }
}
