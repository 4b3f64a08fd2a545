//! `cargo xtask test`: installs what the tests need, builds what they run, and runs them. The
//! runner's summary comes last.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail};

use crate::{deb, packages, portable, step};

#[expect(dead_code, reason = "the controller's tests do more with a server")]
#[path = "../../controller-stub/tests/controller/cluster.rs"]
mod cluster;

use cluster::Cluster;

/// Which tests.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leave out the tests that boot systemd containers, which take root
    #[arg(long)]
    no_lab: bool,
}

/// The variable that names the system on the lab's machines: whoever sets it gets that one alone.
const SUITE: &str = "AIO_LAB_SUITE";

/// The tests that are run on PostgreSQL as well: the store's, and the controller's but for those that are
/// about a file of SQLite's, about programs beside the server, and about what no database has to do with.
const ON_POSTGRESQL: &str = "package(controller-stub) & ((test(/^store::/) - test(/^store::database::/)) \
    | (binary(controller) - test(/^(aiwm|conformance|database|group|hostile|migrate|pages|postgres|program|reference|tls|upkeep)::/))) \
    - test(/heartbeats_never_write|whose_database_takes_no_changes|the_command_line_rolls_out|the_history_survives/) \
    - test(/a_full_disk_fails|a_node_with_eight_gpus/)";

/// The suites with the oldest systemd that is promised (247), the newest stable one (257), and
/// Debian testing, which stands in for Ubuntu 26.04. All other tests run once, with the lab's usual
/// suite (252).
const OTHER_SUITES: [&str; 3] = ["bullseye", "trixie", "forky"];

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.no_lab {
        eprintln!(
            "xtask: --no-lab: the tests under lab:: are left out, so nothing is said about real systemd"
        );
        packages::install(&[packages::CHECKERS, packages::BROWSER])?;
        // Whole-system tests run what is shipped, and the fake driver beside it.
        step::run(&mut step::cargo(&["build", "--release", "--locked"]))?;
        let installer = ["build", "--profile", "installer", "--locked", "--package", "aio-installer"];
        step::run(&mut step::cargo(&installer))?;
        step::run(&mut step::cargo(&["build", "--release", "--locked", "--package", "fake-nvml"]))?;
        return everything(step::target_dir()?.join("release"), true, &[]);
    }
    packages::install(&[packages::ROOT_FILE_SYSTEMS, packages::LAB, packages::CHECKERS, packages::BROWSER])?;
    // The tests' build fills what the linking of the programs leaves of this computer.
    let tests = || step::run(&mut step::cargo(&["test", "--workspace", "--locked", "--no-run", "--quiet"]));
    let programs = step::beside(tests, || {
        let programs = portable::build()?;
        deb::pack()?;
        Ok(programs)
    })?;
    let suites: &[&str] = if std::env::var_os(SUITE).is_some() { &[] } else { &OTHER_SUITES };
    let mut failed = Vec::new();
    for suite in suites {
        if let Err(error) = step::run(lab().env(SUITE, suite).env(PROGRAMS, &programs)) {
            eprintln!("xtask: {error:#}");
            failed.push(*suite);
        }
    }
    everything(programs, false, &failed)
}

/// Where the tests find the programs that they run.
const PROGRAMS: &str = "AIO_BIN_DIR";

/// The tests that boot machines and run once, with the lab's usual system: measurements and the
/// soak (processor, kernel and faults are the same on every system), the program that kills itself,
/// which is built with the tests and so not for Debian 11, those that need a root file system of
/// their own (one is enough), those that wait for faults to show, and those about our own words and the
/// network more than about the system.
const ONCE: [&str; 18] = [
    "footprint",
    "crash",
    "soak",
    "ansible",
    "cloud_init",
    "small_deployment",
    "needrestart",
    "power",
    "updates::faults",
    "updates::days",
    "updates::power",
    "bad_input",
    "bundles",
    "command_line",
    "session",
    "support_bundle",
    "tls",
    "undelivered",
];

/// The tests that boot machines, without those that run once.
fn lab() -> Command {
    if step::installed("cargo-nextest") {
        // As all tests are built, so that nothing is built twice.
        let mut nextest = step::nextest();
        let left_out = ONCE.join("|");
        nextest.args(["--filterset", &format!("test(/^lab::/) - test(/^lab::({left_out})::/)")]);
        nextest
    } else {
        let mut test = step::cargo(&["test", "--workspace", "--test", "system", "--locked"]);
        test.args(["--", "lab::"]);
        test.args(ONCE.iter().flat_map(|module| ["--skip".to_owned(), format!("lab::{module}")]));
        test
    }
}

/// All tests, but those of the lab where it is left out; an error in any case when the lab has
/// `failed` on other systems.
fn everything(programs: PathBuf, no_lab: bool, failed: &[&str]) -> Result<()> {
    let mut failed = failed.to_vec();
    let mut tests = if step::installed("cargo-nextest") {
        if let Err(error) = on_postgresql() {
            eprintln!("xtask: {error:#}");
            failed.push("PostgreSQL");
        }
        // nextest runs no documentation tests.
        step::run(&mut step::cargo(&["test", "--workspace", "--locked", "--doc", "--quiet"]))?;
        let mut nextest = step::nextest();
        nextest.args(no_lab.then_some(["--filterset", "not test(/^lab::/)"]).into_iter().flatten());
        nextest
    } else {
        let mut test = step::cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
        test.args(no_lab.then_some(["--", "--skip", "lab::"]).into_iter().flatten());
        test
    };
    tests.env(PROGRAMS, programs);
    if failed.is_empty() {
        return step::become_it(&mut tests);
    }
    step::run(&mut tests)?;
    bail!("tests failed on {}; their report stands above", failed.join(", "))
}

/// The controller's tests with a schema of PostgreSQL each.
fn on_postgresql() -> Result<()> {
    let server = Cluster::start("password")?;
    let mut nextest = step::nextest();
    nextest.args(["--filterset", ON_POSTGRESQL]).env("AIO_TEST_POSTGRES", server.url());
    step::run(&mut nextest)
}
