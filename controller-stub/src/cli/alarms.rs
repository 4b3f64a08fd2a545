//! `controller-stub alarms`: what a person should look at.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use toml::Table;
use uuid::Uuid;

use super::{Failure, Output, Place, Whose, config, print};
use crate::{
    api::alarms::{AlarmState, AlarmView},
    commands::{self, SilenceOf},
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Print the alarms that are not over, the latest first, each with what to do.
    List(List),
    /// Say that an alarm was seen. It goes on until what is wrong is over.
    Acknowledge(Acknowledge),
    /// Tell of no alarms of a node, or of the nodes with a label, for a time. They are raised and
    /// listed as ever.
    Silence(Silence),
}

#[derive(Args)]
struct Common {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    whose: Whose,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(super) struct List {
    /// Those that are over instead.
    #[arg(long)]
    resolved: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(super) struct Acknowledge {
    /// The alarm.
    #[arg(value_name = "ID")]
    alarm: Uuid,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(super) struct Silence {
    /// The node's name or id.
    #[arg(long, value_name = "NODE", required_unless_present = "label", conflicts_with = "label")]
    node: Option<String>,
    /// key=value, or a key with any value.
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// For how long, in hours: up to 720.
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..=720))]
    hours: u32,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List(List { resolved, common }) => {
            let config = config(&common.place, &Table::new())?;
            for alarm in commands::list_alarms(&config, common.whose.into(), resolved).await? {
                show(&alarm, common.output)?;
            }
            Ok(())
        }
        Command::Acknowledge(Acknowledge { alarm, common }) => {
            let config = config(&common.place, &Table::new())?;
            show(&commands::acknowledge_alarm(&config, common.whose.into(), alarm).await?, common.output)
        }
        Command::Silence(Silence { node, label, hours, reason, common }) => {
            let config = config(&common.place, &Table::new())?;
            let of = match (node, label) {
                (Some(node), _) => SilenceOf::Node(node),
                (None, label) => SilenceOf::Label(label.unwrap_or_default()),
            };
            let lasts = Duration::from_secs(u64::from(hours) * 3600);
            let silence = commands::add_silence(&config, common.whose.into(), of, lasts, &reason).await?;
            match common.output {
                Output::Json => json(&silence),
                Output::Text => print(&format!("{} holds until {}", silence.id, silence.until)),
            }
        }
    }
}

fn json(value: &impl Serialize) -> Result<(), Failure> {
    print(&serde_json::to_string(value).unwrap_or_default())
}

fn show(alarm: &AlarmView, output: Output) -> Result<(), Failure> {
    if output == Output::Json {
        return json(alarm);
    }
    let by = alarm.acknowledged_by.as_deref().unwrap_or_default();
    let state = match alarm.state {
        AlarmState::Raised => format!("raised {}", alarm.raised_at),
        AlarmState::Acknowledged => format!("raised {}, seen by {by}", alarm.raised_at),
        AlarmState::Resolved => format!("resolved {}", alarm.resolved_at.unwrap_or(alarm.raised_at)),
    };
    let node = alarm.node_id.as_ref().map(|node| format!(" {node}")).unwrap_or_default();
    print(&format!(
        "{} {} {}{node}, {state}: {}; {}",
        alarm.id,
        alarm.level.as_str(),
        alarm.kind.as_str(),
        alarm.reason,
        alarm.action
    ))
}
