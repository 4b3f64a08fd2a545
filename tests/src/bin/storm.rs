//! `aio-storm`: a storm of events of any size against the controller that was built beside this
//! program, and its figures.

use std::time::Duration;

use aio_tests::{
    artifacts::Artifacts,
    storm::{self, Group, Plan},
};
use anyhow::Result;
use clap::Parser;

/// A fleet that changes all the time, a NOTI that fails, a controller that is killed: no event may be lost
#[derive(Debug, Parser)]
#[command(name = "aio-storm", version)]
struct Arguments {
    /// How many nodes
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// How many of them connect and leave instead of being installed
    #[arg(long, default_value_t = 50)]
    workers: usize,
    /// How many changes of status
    #[arg(long, default_value_t = 100_000)]
    transitions: usize,
    /// How often the controller is killed
    #[arg(long, default_value_t = 25)]
    kills: usize,
    /// So many controllers together on one PostgreSQL server instead of one on a file
    #[arg(long)]
    controllers: Option<usize>,
    /// Of several: how often one stands still until the others have taken it for dead
    #[arg(long, default_value_t = 0, requires = "controllers")]
    stops: usize,
    /// Of several: how often one is cut off from the database and from its workers until then
    #[arg(long, default_value_t = 0, requires = "controllers")]
    cuts: usize,
    /// How often PostgreSQL crashes
    #[arg(long, default_value_t = 0, requires = "controllers")]
    crashes: usize,
    /// No faults and no kills: measure how long events take. A node that changes more than 20
    /// times, and more often than every 3 s, is made to wait by the controller: use many nodes, for
    /// instance `--rate 1000 --nodes 2000 --transitions 30000`
    #[arg(long)]
    calm: bool,
    /// Changes per second [default: as many as there can be]
    #[arg(long)]
    rate: Option<f64>,
    /// Where chance begins [default: anywhere]
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("seed {seed}");
    let plan = Plan {
        nodes: arguments.nodes,
        workers: arguments.workers.min(arguments.nodes),
        transitions: arguments.transitions,
        kills: if arguments.calm { 0 } else { arguments.kills },
        group: arguments.controllers.map(|controllers| Group {
            controllers,
            stops: if arguments.calm { 0 } else { arguments.stops },
            cuts: if arguments.calm { 0 } else { arguments.cuts },
            crashes: if arguments.calm { 0 } else { arguments.crashes },
        }),
        faults: !arguments.calm,
        rate: arguments.rate,
        seed,
        patience: Duration::from_secs(600),
    };
    print!("{}", storm::run(&Artifacts::beside_this_program()?, &plan)?);
    Ok(())
}
