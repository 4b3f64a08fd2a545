//! `cargo xtask load <what>`: full sizes, whose small ones run among the tests. What is measured is
//! what is shipped.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{packages, portable, step};

/// What is loaded, and how much of it; what comes behind it is the measuring program's own.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The gateway, with 10,000 workers: memory, processor time, and their return after a SIGKILL; `-- --tls`
    /// over TLS, `-- --dialect aiwm --workers 2000` over AIWM's Socket.IO, `-- --controllers 4` over several
    /// controllers on one PostgreSQL server
    Fleet(Options),
    /// The edge: every attack that is known on a controller, while 500 good workers and a good user go on
    Edge(Options),
    /// A rollout to 5,000 workers, with the controller killed 20 times; `-- --faulty-per-mille 300` for a bad
    /// release
    Rollout(Options),
    /// Updates of a real worker there and back on real systemd (as root), and from heartbeat to heartbeat
    Updates(Updates),
    /// Power cuts: every 20 ms of an update there and back, what the disk holds is booted anew (as root)
    Power(Systems),
    /// The events: 100,000 changes of 1,000 nodes while NOTI fails and the controller is killed 25
    /// times; `-- --calm` for latencies, `-- --controllers 3 --stops 2 --cuts 2 --crashes 3` for several
    Events(Options),
    /// The API, asked by schemathesis (`pip install schemathesis`) for whatever its OpenAPI
    /// document allows and forbids
    Schemathesis(Options),
    /// Everything that reads what others wrote, with ten million hostile inputs
    Fuzz(Fuzz),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Passed on, with `--` before them or not; `-- --help` says what there is
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Updates {
    /// How many on each system
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    #[command(flatten)]
    systems: Systems,
    /// The worker of the release before: it is also upgraded by hand, and updates itself from then on
    #[arg(long, value_name = "PROGRAM")]
    before: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Systems {
    /// The system (bullseye, bookworm, trixie or forky: systemd 247, 252, 257 or the newest), again for
    /// others
    #[arg(long = "suite", default_values = ["bullseye", "bookworm", "trixie"])]
    suites: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Fuzz {
    /// How many inputs
    #[arg(long, default_value_t = 10_000_000)]
    inputs: u64,
    /// Where chance begins: the same seed makes the same inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.what {
        What::Fleet(Options { options }) => simulate("aio-fleet", "aio-fleet", options),
        What::Edge(Options { options }) => simulate("aio-fleet", "aio-edge", options),
        What::Rollout(Options { options }) => simulate("aio-fleet", "aio-rollout", options),
        What::Updates(updates) => update(updates),
        What::Power(systems) => systems.test(&["lab::updates::power"], |test| {
            test.env("AIO_POWER_BOOTS", "1000");
            Ok(())
        }),
        What::Events(Options { options }) => simulate("aio-tests", "aio-storm", options),
        What::Schemathesis(Options { options }) => schemathesis(options),
        What::Fuzz(Fuzz { inputs, seed }) => {
            // Unoptimised: there, an overflow is a panic.
            let mut test = step::cargo(&["test", "--locked", "--package", "controller-stub", "--lib"]);
            test.env("FUZZ_INPUTS", inputs.to_string()).env("FUZZ_SEED", seed.to_string());
            step::become_it(test.args(["--", "fuzz::", "--nocapture"]))
        }
    }
}

/// Builds the controller and a program that loads it, and becomes that program.
fn simulate(package: &str, program: &str, options: &[String]) -> Result<()> {
    let build = ["build", "--release", "--locked", "--package", "controller-stub", "--package", package];
    step::run(&mut step::cargo(&build))?;
    let program = step::target_dir()?.join("release").join(program);
    step::become_it(step::program(&program.display().to_string(), &[]).args(options))
}

/// Has the lab's tests of updates go round as often as that.
fn update(Updates { rounds, systems, before }: &Updates) -> Result<()> {
    systems.test(&["lab::updates::a_node_goes_to", "lab::updates::before"], |test| {
        test.env("AIO_UPDATE_ROUNDS", rounds.to_string());
        if let Some(before) = before {
            test.arg("--include-ignored").env("AIO_WORKER_BEFORE", std::path::absolute(before)?);
        }
        Ok(())
    })
}

impl Systems {
    /// Runs these tests of the lab on each system, as `set` sets them.
    fn test(&self, tests: &[&str], set: impl Fn(&mut Command) -> Result<()>) -> Result<()> {
        packages::install(&[packages::ROOT_FILE_SYSTEMS, packages::LAB])?;
        let programs = portable::build()?;
        for suite in &self.suites {
            let mut test =
                step::cargo(&["test", "--locked", "--package", "aio-tests", "--test", "system", "--"]);
            test.args(tests).arg("--nocapture");
            test.env("AIO_BIN_DIR", &programs).env("AIO_LAB_SUITE", suite);
            set(&mut test)?;
            step::run(&mut test)?;
        }
        Ok(())
    }
}

/// Starts a controller on a folder of its own, and lets schemathesis ask it.
fn schemathesis(options: &[String]) -> Result<()> {
    step::run(&mut step::cargo(&["build", "--locked", "--package", "controller-stub"]))?;
    let program = step::target_dir()?.join("debug/controller-stub");
    let folder = step::target_dir()?.join("schemathesis");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let controller = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).arg("--data-dir").arg(&folder).stdout(Stdio::piped());
        command
    };
    // It asks as fast as it can, and is not to be told to wait.
    let mut serve = controller(&["serve", "--listen", "127.0.0.1:0"]);
    let mut server = serve.env("API_REQUESTS_PER_SECOND", "0").env("RUST_LOG", "error").spawn()?;
    let asked = ask(&mut server, &mut controller(&["user-token", "--role", "universe.owner"]), options);
    server.kill()?;
    server.wait()?;
    asked
}

fn ask(server: &mut Child, token: &mut Command, options: &[String]) -> Result<()> {
    let mut line = String::new();
    BufReader::new(server.stdout.take().context("the controller has no output")?).read_line(&mut line)?;
    let url = line.trim().strip_prefix("listening on ").context("the controller does not listen")?;
    let token = String::from_utf8(token.output()?.stdout)?;
    let document = format!("{url}/openapi.json");
    let config = "controller-stub/tests/schemathesis.toml";
    let asking = ["--config-file", config, "run", &document, "--continue-on-failure"];
    step::run(step::program("schemathesis", &asking).args(options).env("AIO_USER_TOKEN", token.trim()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn what_stands_behind_what_is_loaded_is_passed_on_as_it_is() {
        for words in [["load", "fleet", "--", "--tls"].as_slice(), &["load", "fleet", "--tls"]] {
            let Line { arguments: Arguments { what } } = Line::try_parse_from(words).ok().unwrap();
            let What::Fleet(Options { options }) = what else { panic!("{what:?}") };
            assert_eq!(options, ["--tls"], "{words:?}");
        }
        let words = ["load", "events", "--controllers", "3", "--calm"];
        let Line { arguments: Arguments { what } } = Line::try_parse_from(words).ok().unwrap();
        let What::Events(Options { options }) = what else { panic!("{what:?}") };
        assert_eq!(options, ["--controllers", "3", "--calm"]);
    }
}
