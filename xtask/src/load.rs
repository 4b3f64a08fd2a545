//! `cargo xtask load <what>`: full sizes, whose small ones run among the tests. What is measured is what is shipped.

use anyhow::Result;

use crate::step;

/// What is loaded, and how much of it; what comes behind it is the measuring program's own.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The gateway, with 10,000 workers: memory, processor time, and their return after a SIGKILL
    Fleet(Options),
    /// The edge: every attack that is known on a controller, while 500 good workers and a good user go on
    Edge(Options),
    /// The events: 100,000 changes of 1,000 nodes while NOTI fails and the controller is killed 25 times; `-- --calm` for latencies
    Events(Options),
    /// Everything that reads what others wrote, with ten million hostile inputs
    Fuzz(Fuzz),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Passed on; `--help` behind `--` says what there is
    #[arg(last = true)]
    options: Vec<String>,
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
        What::Events(Options { options }) => simulate("aio-tests", "aio-storm", options),
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
