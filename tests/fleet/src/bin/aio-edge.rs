//! `aio-edge`: attacks a built controller while good workers go on, prints the figures, and fails
//! when the good ones suffer.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use aio_fleet::EdgeScenario;
use aio_tests::artifacts::Artifacts;
use anyhow::Result;
use clap::Parser;

/// Attacks a controller, while good workers and a good user go on
#[derive(Debug, Parser)]
#[command(name = "aio-edge", version)]
struct Arguments {
    /// How many good workers
    #[arg(long, default_value_t = 500)]
    workers: usize,
    /// Seconds of each attack
    #[arg(long, default_value_t = 10.0)]
    phase: f64,
    /// Seconds within which connections that do nothing must be gone; 0 does not look
    #[arg(long, default_value_t = 100.0)]
    release: f64,
    /// Only the attacks whose names contain this, e.g. `A4`
    #[arg(long, default_value = "")]
    only: String,
    /// The program [default: the one that was built beside this one]
    #[arg(long)]
    controller: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Arguments { workers, phase, release, only, controller } = Arguments::parse();
    let release = (release > 0.0).then(|| Duration::from_secs_f64(release));
    let scenario = EdgeScenario {
        workers,
        phase: Duration::from_secs_f64(phase),
        release,
        latest_beat: Duration::from_secs(1),
        p99: Duration::from_millis(250),
        only,
    };
    let controller = match controller {
        Some(program) => program,
        None => Artifacts::beside_this_program()?.controller()?,
    };
    let report = aio_fleet::attack_and_watch(&scenario, controller).await?;
    print!("{report}");
    Ok(if report.breaches().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
