//! `aio-fleet`: runs the scenario at any size against a built controller, and prints its figures as a table.

use std::{path::PathBuf, time::Duration};

use aio_fleet::{Dialect, Scenario};
use aio_tests::artifacts::Artifacts;
use anyhow::{Result, ensure};
use clap::Parser;

/// Thousands of simulated workers against a real controller
#[derive(Debug, Parser)]
#[command(name = "aio-fleet", version)]
struct Arguments {
    /// How many workers
    #[arg(long, default_value_t = 10_000)]
    workers: usize,
    /// Over TLS, with a certificate of the controller's own authority
    #[arg(long)]
    tls: bool,
    /// What they speak
    #[arg(long, value_enum, default_value_t)]
    dialect: Dialect,
    /// So many controllers together on one PostgreSQL server, of which one is killed
    #[arg(long)]
    controllers: Option<usize>,
    /// What the controllers keep their state in [default: postgres with --controllers, else sqlite]
    #[arg(long, value_enum)]
    database: Option<Database>,
    /// GPUs of each; a heartbeat of 8 is nearly 1 KiB
    #[arg(long, default_value_t = 8)]
    gpus: usize,
    /// Seconds that a silent worker counts as online
    #[arg(long, default_value_t = 120.0)]
    lease: f64,
    /// Seconds between two heartbeats of a worker, while they are measured
    #[arg(long, default_value_t = 10.0)]
    pace: f64,
    /// Seconds that each phase is measured for
    #[arg(long, default_value_t = 30.0)]
    phase: f64,
    /// Seconds over which the workers are started [default: 500 each second]
    #[arg(long)]
    ramp: Option<f64>,
    /// The program [default: the one that was built beside this one]
    #[arg(long)]
    controller: Option<PathBuf>,
}

/// A database of controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Database {
    Sqlite,
    Postgres,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let scenario = Scenario {
        workers: arguments.workers,
        gpus: arguments.gpus,
        tls: arguments.tls,
        dialect: arguments.dialect,
        lease: Duration::from_secs_f64(arguments.lease),
        pace: Duration::from_secs_f64(arguments.pace),
        phase: Duration::from_secs_f64(arguments.phase),
        ramp: Duration::from_secs_f64(arguments.ramp.unwrap_or(arguments.workers as f64 / 500.0)),
        back: Duration::from_secs(180),
    };
    let controller = match arguments.controller {
        Some(program) => program,
        None => Artifacts::beside_this_program()?.controller()?,
    };
    let several = arguments.controllers.is_some_and(|count| count > 1);
    ensure!(
        several == arguments.controllers.is_some()
            && arguments.database.is_none_or(|database| several == (database == Database::Postgres)),
        "one controller keeps its state in SQLite, and two or more (--controllers) in PostgreSQL: no others are measured"
    );
    match arguments.controllers {
        Some(count) => print!("{}", aio_fleet::run_group(&scenario, count, controller).await?),
        None => print!("{}", aio_fleet::run(&scenario, controller).await?),
    }
    Ok(())
}
