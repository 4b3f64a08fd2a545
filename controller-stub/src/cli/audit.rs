//! `controller-stub audit`: the audit trail, to be kept or looked through elsewhere.

use std::io;

use aio_protocol::{ids::NodeId, time::Timestamp};
use clap::{Args, ValueEnum};

use toml::Table;

use super::{Failure, Place, Whose, config};
use crate::commands::{self, AuditFilter, AuditFormat};

#[derive(Args)]
pub(super) struct Audit {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    whose: Whose,
    /// Only what concerns this node.
    #[arg(long, value_name = "ID")]
    node: Option<NodeId>,
    /// Only what they did: user:ID, or `command line`.
    #[arg(long, value_name = "ACTOR")]
    actor: Option<String>,
    /// Only what was asked for then or later.
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only what was asked for before.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A JSON object a line.
    Ndjson,
    /// A table.
    Csv,
}

pub(super) async fn run(args: Audit) -> Result<(), Failure> {
    let config = config(&args.place, &Table::new())?;
    let Audit { node, actor, since, until, .. } = args;
    let filter = AuditFilter { node, actor, since, until };
    let format = match args.format {
        Format::Ndjson => AuditFormat::Ndjson,
        Format::Csv => AuditFormat::Csv,
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    Ok(commands::audit(&config, args.whose.into(), filter, format, &mut out).await?)
}
