//! `controller-stub migrate`: from SQLite to PostgreSQL.

use clap::Args;
use toml::Table;

use super::{Failure, Output, Place, config, print};
use crate::commands;

#[derive(Args)]
pub(super) struct Migrate {
    #[command(flatten)]
    place: Place,
    /// The database that everything comes from, e.g. sqlite:///var/lib/aio-controller-stub/controller.db.
    /// [default: controller.db of the data folder]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// The empty database of a PostgreSQL server that everything goes to. [default: DATABASE_URL]
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) async fn run(Migrate { place, from, to, output }: Migrate) -> Result<(), Failure> {
    let mut target = config(&place, &Table::new())?;
    let mut source = target.clone();
    source.database_url = from.map(Into::into);
    if let Some(to) = to {
        target.database_url = Some(to.into());
    }
    let carried = commands::migrate(&source, &target).await?;
    let rows: u64 = carried.iter().map(|it| it.rows).sum();
    for it in &carried {
        match output {
            Output::Json => print(&serde_json::to_string(it).unwrap_or_default())?,
            Output::Text => print(&format!("{}: {} rows", it.table, it.rows))?,
        }
    }
    match output {
        Output::Json => Ok(()),
        Output::Text => print(&format!(
            "{rows} rows were carried over and compared; the database that they come from is as it was"
        )),
    }
}
