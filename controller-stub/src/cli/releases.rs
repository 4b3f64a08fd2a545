//! `controller-stub releases …`: taking releases over, and listing them.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use aio_protocol::{
    error_code::ErrorCode,
    release::{Platform, index::INDEX},
};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::{Failure, Output, Place, config, print};
use crate::{
    clock,
    commands::{self, Import, IndexSummary, Outcome},
    config::Config,
    releases::expiry::RENEWAL,
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Verify releases and put them into the folder that the server offers, which may run meanwhile.
    Add(AddReleases),
    /// List the releases in that folder, oldest first.
    List(ListReleases),
}

#[derive(Args)]
pub(super) struct AddReleases {
    /// A version's folder, as `cargo xtask release` writes it, or a folder of such.
    #[arg(value_name = "DIR")]
    from: PathBuf,
    #[command(flatten)]
    offered: Offered,
}

#[derive(Args)]
pub(super) struct ListReleases {
    #[command(flatten)]
    offered: Offered,
}

#[derive(Args, Serialize)]
pub(super) struct Offered {
    #[command(flatten)]
    #[serde(skip)]
    place: Place,
    /// The folder of the releases. [default: the one that the server was started with]
    #[arg(long, value_name = "DIR")]
    releases: Option<PathBuf>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    #[serde(skip)]
    output: Output,
}

pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Add(args) => add(args).await,
        Command::List(args) => list(args).await,
    }
}

async fn add(args: AddReleases) -> Result<(), Failure> {
    let Import { versions, index } = commands::add_releases(&args.offered.config()?, &args.from).await?;
    for added in versions {
        match args.offered.output {
            Output::Text => {
                let outcome = outcome(added.outcome);
                print(&format!("{}  {}  {outcome}", added.version, joined(&added.platforms)))?;
            }
            Output::Json => print(&serde_json::to_string(&added).map_err(io::Error::from)?)?,
        }
    }
    index.map_or(Ok(()), |index| print_index(&index, args.offered.output))
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Added => "added",
        Outcome::Extended => "extended",
        Outcome::SignedAgain => "signed again",
        Outcome::Replaced => "replaced",
        Outcome::AlreadyThere => "there already",
    }
}

async fn list(args: ListReleases) -> Result<(), Failure> {
    let list = commands::list_releases(&args.offered.config()?).await?;
    for release in list.releases {
        match args.offered.output {
            Output::Text => {
                let signed = if release.signed { "signed" } else { "not signed" };
                let commit = release.commit.map(|commit| format!("  commit {commit}")).unwrap_or_default();
                let default = if release.default { "  default" } else { "" };
                let indexed = if release.indexed == Some(false) { "  not in the index" } else { "" };
                let platforms = joined(&release.platforms);
                print(&format!("{}  {platforms}  {signed}{commit}{default}{indexed}", release.version))?;
            }
            Output::Json => print(&serde_json::to_string(&release).map_err(io::Error::from)?)?,
        }
    }
    list.index.map_or(Ok(()), |index| print_index(&index, args.offered.output))
}

fn print_index(index: &IndexSummary, output: Output) -> Result<(), Failure> {
    let IndexSummary { serial, expires_at, expired, .. } = index;
    match output {
        Output::Text => {
            let floor = index.floor.as_ref().map(|floor| format!("  floor {floor}")).unwrap_or_default();
            let outcome = index.outcome.map(|it| format!("  {}", outcome(it))).unwrap_or_default();
            print(&format!("{INDEX}  serial {serial}  expires {expires_at}{floor}{outcome}"))?;
        }
        Output::Json => {
            print(&serde_json::to_string(&json!({ "index": index })).map_err(io::Error::from)?)?;
        }
    }
    let cure = ErrorCode::IndexExpired.cure();
    let warning = if *expired {
        format!("warning: {INDEX} has expired, and nodes take no update under it\n  cure: {cure}")
    } else if expires_at.since(clock::now()) <= RENEWAL {
        format!("warning: {INDEX} expires soon\n  cure: {cure}")
    } else {
        return Ok(());
    };
    // Whoever does not read it reads the answer.
    let _ = writeln!(io::stderr(), "{warning}");
    Ok(())
}

fn joined(platforms: &[Platform]) -> String {
    platforms.iter().map(|platform| platform.as_str()).collect::<Vec<_>>().join(",")
}

impl Offered {
    fn config(&self) -> Result<Config, Failure> {
        config(&self.place, self)
    }
}
