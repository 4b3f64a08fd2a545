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
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Passed on; `--help` behind `--` says what there is
    #[arg(last = true)]
    options: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.what {
        What::Fleet(Options { options }) => {
            let build =
                ["build", "--release", "--locked", "--package", "controller-stub", "--package", "aio-fleet"];
            step::run(&mut step::cargo(&build))?;
            let fleet = step::target_dir()?.join("release/aio-fleet");
            step::become_it(step::program(&fleet.display().to_string(), &[]).args(options))
        }
    }
}
