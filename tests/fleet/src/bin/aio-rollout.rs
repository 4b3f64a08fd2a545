//! `aio-rollout`: brings a fleet of simulated workers to another version, kills the controller meanwhile,
//! prints the figures, and fails when somebody was lost or did something twice.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use aio_fleet::RolloutScenario;
use aio_tests::artifacts::Artifacts;
use anyhow::Result;
use clap::Parser;

/// Brings a fleet to another version while its controller is killed
#[derive(Debug, Parser)]
#[command(name = "aio-rollout", version)]
struct Arguments {
    /// Workers that are there from the beginning
    #[arg(long, default_value_t = 5000)]
    nodes: usize,
    /// Workers that come when the rollout is over
    #[arg(long, default_value_t = 50)]
    late: usize,
    /// Pinned ones, and as many of packages
    #[arg(long, default_value_t = 50)]
    pinned: usize,
    /// On how many of a thousand the release is faulty
    #[arg(long, default_value_t = 0)]
    faulty_per_mille: u32,
    /// How often the controller is killed
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// How many go first
    #[arg(long, default_value = "1%")]
    canaries: String,
    /// How many may switch at a time
    #[arg(long, default_value = "5%")]
    in_flight: String,
    /// The program [default: the one that was built beside this one]
    #[arg(long)]
    controller: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let scenario = RolloutScenario {
        nodes: arguments.nodes,
        late: arguments.late,
        pinned: arguments.pinned,
        faulty_per_mille: arguments.faulty_per_mille,
        kills: arguments.kills,
        canaries: arguments.canaries,
        in_flight: arguments.in_flight,
        bound: Duration::from_secs(3600),
    };
    let controller = match arguments.controller {
        Some(program) => program,
        None => Artifacts::beside_this_program()?.controller()?,
    };
    let report = aio_fleet::roll_out(&scenario, controller).await?;
    print!("{report}");
    let wanted = scenario.nodes - 2 * scenario.pinned;
    let whole = report.state == "halted" || report.arrived == wanted && report.late_arrived == scenario.late;
    let good = whole && report.twice == 0 && report.unwanted == 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
