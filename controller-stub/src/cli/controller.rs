//! `controller-stub controller`: who serves the database together.

use clap::{Args, Subcommand};
use toml::Table;

use super::{Failure, Output, Place, config, print};
use crate::commands;

#[derive(Subcommand)]
pub(super) enum Command {
    /// List the controllers that serve the database together (SHARED), the oldest first.
    List(List),
}

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    place: Place,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) async fn run(command: Command) -> Result<(), Failure> {
    let Command::List(List { place, output }) = command;
    let controllers = commands::list_controllers(&config(&place, &Table::new())?).await?;
    if controllers.is_empty() && output == Output::Text {
        return print("no controllers serve this database together");
    }
    for it in controllers {
        if output == Output::Json {
            print(&serde_json::to_string(&it).unwrap_or_default())?;
            continue;
        }
        let role = if it.leads { ", leads" } else { "" };
        print(&format!(
            "{} {} {} {}: {} workers, heard of at {}{role}",
            it.number, it.name, it.address, it.version, it.workers, it.beaten_at
        ))?;
    }
    Ok(())
}
