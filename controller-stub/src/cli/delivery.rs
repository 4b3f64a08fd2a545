//! `controller-stub delivery`: events on their way to NOTI.

use clap::{Args, Subcommand};
use toml::Table;

use super::{Failure, Output, Place, config, print};
use crate::commands;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Print how delivery stands: its state, and how many events wait or were given up.
    Show(Show),
    /// Try every event now that waits, whatever it waits for: after NOTI answered 410, or once the
    /// cause of a 401 is cured.
    Resume(Resume),
}

#[derive(Args)]
pub(super) struct Show {
    #[command(flatten)]
    place: Place,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(super) struct Resume {
    #[command(flatten)]
    place: Place,
}

pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Show(Show { place, output }) => {
            let summary = commands::show_delivery(&config(&place, &Table::new())?).await?;
            if output == Output::Json {
                return print(&serde_json::to_string(&summary).unwrap_or_default());
            }
            let state = summary.state.as_deref().unwrap_or("never served");
            let oldest = summary.oldest.map(|at| format!(", the oldest since {at}")).unwrap_or_default();
            print(&format!(
                "{state}: {} events wait{oldest}; {} were given up",
                summary.waiting, summary.dead
            ))
        }
        Command::Resume(Resume { place }) => {
            commands::resume_delivery(&config(&place, &Table::new())?).await?;
            print("a server that runs tries every event now that waits")
        }
    }
}
