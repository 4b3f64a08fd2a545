//! `controller-stub releases …`: taking releases over, and listing them.

use std::{io, path::PathBuf};

use aio_protocol::release::Platform;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Failure, Output, Place, config, print};
use crate::{
    commands::{self, Outcome},
    config::Config,
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
    for added in commands::add_releases(&args.offered.config()?, &args.from).await? {
        let outcome = match added.outcome {
            Outcome::Added => "added",
            Outcome::Extended => "extended",
            Outcome::SignedAgain => "signed again",
            Outcome::AlreadyThere => "there already",
        };
        match args.offered.output {
            Output::Text => {
                print(&format!("{}  {}  {outcome}", added.version, joined(&added.platforms)))?;
            }
            Output::Json => print(&serde_json::to_string(&added).map_err(io::Error::from)?)?,
        }
    }
    Ok(())
}

async fn list(args: ListReleases) -> Result<(), Failure> {
    for release in commands::list_releases(&args.offered.config()?).await? {
        match args.offered.output {
            Output::Text => {
                let signed = if release.signed { "signed" } else { "not signed" };
                let commit = release.commit.map(|commit| format!("  commit {commit}")).unwrap_or_default();
                let default = if release.default { "  default" } else { "" };
                let platforms = joined(&release.platforms);
                print(&format!("{}  {platforms}  {signed}{commit}{default}", release.version))?;
            }
            Output::Json => print(&serde_json::to_string(&release).map_err(io::Error::from)?)?,
        }
    }
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
