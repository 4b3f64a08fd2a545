//! `cargo xtask demo`: builds what the demo runs, and becomes it.

use anyhow::{Result, ensure};

use crate::{packages, step};

/// What the demo shows.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Stop when the node is online, and print one line of JSON
    #[arg(long)]
    once: bool,
    /// Show an update of a fleet instead: ten simulated workers, with --systemd a real one beside them, and a
    /// faulty release that halts at its canary
    #[arg(long, conflicts_with = "once")]
    update: bool,
    /// Show a simulated fleet of so many nodes, some of them sick, on the pages
    #[arg(long, value_name = "NODES", conflicts_with_all = ["update", "systemd"])]
    fleet: Option<u32>,
    /// Install on real systemd, in a container (as root; installs what that needs)
    #[arg(long)]
    systemd: bool,
}

/// Unoptimised programs, because they are built soonest.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.systemd {
        ensure!(rustix::process::geteuid().is_root(), "--systemd boots a container, and that takes root");
        packages::install(&[packages::ROOT_FILE_SYSTEMS, packages::LAB])?;
    }
    step::run(&mut step::cargo(&["build", "--workspace", "--locked"]))?;
    let program = match (arguments.update, arguments.fleet) {
        (true, _) => "aio-demo-update",
        (false, Some(_)) => "aio-demo-fleet",
        (false, None) => "aio-demo",
    };
    let demo = step::target_dir()?.join("debug").join(program);
    let mut command = step::program(&demo.display().to_string(), &[]);
    command.args(arguments.fleet.map(|nodes| nodes.to_string()));
    command.args(arguments.once.then_some("--once")).args(arguments.systemd.then_some("--systemd"));
    // So that the prompt comes back after a Ctrl-C when the demo has cleared up, and not before.
    step::become_it(&mut command)
}
