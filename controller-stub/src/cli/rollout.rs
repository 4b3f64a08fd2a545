//! `controller-stub rollout …`: bringing a fleet to another version, and how far that is.

use std::{collections::BTreeMap, io, time::Duration};

use aio_protocol::release::ReleaseVersion;
use clap::{Args, Subcommand};
use serde::Serialize;
use toml::Table;
use uuid::Uuid;

use super::{Failure, Output, Place, Whose, config, print};
use crate::{
    api::rollouts::{RolloutNode, RolloutPlan, RolloutView},
    commands,
    config::Config,
    rollout::{Order, Settings, Share, Stage, State},
    rollouts::Draft,
};

/// Interval between two looks of `--follow`.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Subcommand)]
pub(super) enum Command {
    /// Bring an organisation's nodes, or those of a group, to a version of the index of releases:
    /// canaries first, then in waves.
    Create(Create),
    /// List the rollouts, newest first.
    List(List),
    /// Print how far a rollout is, and which nodes failed, wait or are left out, and why.
    Status(Status),
    /// Let no node go; those that switch finish.
    Pause(OrderArgs),
    /// Go on, whatever has failed until now.
    Resume(OrderArgs),
    /// Start a draft.
    Start(OrderArgs),
    /// Wait for neither the canaries' time nor the next wave's.
    Promote(OrderArgs),
    /// End it and take its offers back.
    Abort(Abort),
}

#[derive(Args)]
pub(super) struct Create {
    /// The version, e.g. v1.1.0.
    #[arg(value_name = "VERSION")]
    version: ReleaseVersion,
    /// Only nodes with the label group=NAME.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// How many nodes go first: a number, or percent. [default: 1%, from 1 to 5]
    #[arg(long, value_name = "N|P%")]
    canaries: Option<Share>,
    /// For how long the canaries must run before the others follow. [default: 15m]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    soak: Option<u32>,
    /// Up to which part of the nodes each wave goes, in percent. [default: 10,30,100]
    #[arg(long, value_name = "P,…", value_delimiter = ',')]
    waves: Vec<u8>,
    /// Between two waves. [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    wave_pause: Option<u32>,
    /// How many nodes may switch at a time: a number, or percent. [default: 5%, from 1 to 50]
    #[arg(long, value_name = "N|P%")]
    in_flight: Option<Share>,
    /// Within an hour, whatever the nodes' windows say.
    #[arg(long)]
    urgent: bool,
    /// Say which nodes would go when, and who is left out and why. Change nothing.
    #[arg(long, conflicts_with = "draft")]
    dry_run: bool,
    /// Do not start it yet.
    #[arg(long)]
    draft: bool,
    #[command(flatten)]
    common: Common,
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
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(super) struct Status {
    /// The rollout. [default: the newest]
    #[arg(value_name = "ID")]
    rollout: Option<Uuid>,
    /// Go on printing whenever something changes, until it is over.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(super) struct OrderArgs {
    /// The rollout. [default: the newest]
    #[arg(value_name = "ID")]
    rollout: Option<Uuid>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(super) struct Abort {
    /// Bring the nodes that run the new version back to the versions before, in waves.
    #[arg(long)]
    revert: bool,
    #[command(flatten)]
    order: OrderArgs,
}

/// Whole seconds of a duration such as `15m`.
fn seconds(text: &str) -> Result<u32, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    u32::try_from(span.as_secs()).map_err(|_| "must be between 0 and 136 years".to_owned())
}

pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create(args) => create(args).await,
        Command::List(args) => list(args).await,
        Command::Status(args) => status(args).await,
        Command::Pause(args) => order(args, Order::Pause, false).await,
        Command::Resume(args) => order(args, Order::Resume, false).await,
        Command::Start(args) => order(args, Order::Start, false).await,
        Command::Promote(args) => order(args, Order::Promote, false).await,
        Command::Abort(args) => order(args.order, Order::Abort, args.revert).await,
    }
}

async fn create(args: Create) -> Result<(), Failure> {
    let usual = Settings::default();
    let settings = Settings {
        canaries: args.canaries.unwrap_or(usual.canaries),
        soak_seconds: args.soak.unwrap_or(usual.soak_seconds),
        waves: if args.waves.is_empty() { usual.waves } else { args.waves },
        wave_pause_seconds: args.wave_pause.unwrap_or(usual.wave_pause_seconds),
        in_flight: args.in_flight.unwrap_or(usual.in_flight),
        urgent: args.urgent,
    };
    let draft = Draft { version: args.version, group: args.group, only: None, settings };
    let Common { place, whose, output } = args.common;
    let config = config(&place, &Table::new())?;
    if args.dry_run {
        let plan = commands::plan_rollout(&config, whose.into(), draft).await?;
        return show_plan(&plan, output);
    }
    show(&commands::create_rollout(&config, whose.into(), draft, !args.draft).await?, output)
}

async fn list(List { common }: List) -> Result<(), Failure> {
    let config = config(&common.place, &Table::new())?;
    for rollout in commands::list_rollouts(&config, common.whose.into()).await? {
        show(&rollout, common.output)?;
    }
    Ok(())
}

async fn order(args: OrderArgs, order: Order, revert: bool) -> Result<(), Failure> {
    let Common { place, whose, output } = args.common;
    let config = config(&place, &Table::new())?;
    show(&commands::order_rollout(&config, whose.into(), args.rollout, order, revert).await?, output)
}

async fn status(args: Status) -> Result<(), Failure> {
    let Common { place, whose, output } = args.common;
    let config = config(&place, &Table::new())?;
    let rollout = commands::show_rollout(&config, whose.clone().into(), args.rollout).await?;
    show_status(&config, &rollout, output).await?;
    if !args.follow {
        return Ok(());
    }
    let mut shown = line(&rollout);
    let (id, mut rollout) = (rollout.id, rollout);
    while !is_over(&rollout.detail) {
        tokio::time::sleep(FOLLOW_INTERVAL).await;
        rollout = commands::show_rollout(&config, whose.clone().into(), Some(id)).await?;
        let now = line(&rollout);
        if now != shown {
            show(&rollout, output)?;
            shown = now;
        }
    }
    show_status(&config, &rollout, output).await
}

/// Whether it does not go on by itself.
fn is_over(state: &State) -> bool {
    match state {
        State::Completed | State::Halted { .. } | State::Aborted | State::Superseded => true,
        State::Draft
        | State::Canary
        | State::Soaking { .. }
        | State::Rolling { .. }
        | State::Finishing
        | State::Paused { .. }
        | State::Reverting { .. } => false,
    }
}

async fn show_status(config: &Config, rollout: &RolloutView, output: Output) -> Result<(), Failure> {
    show(rollout, output)?;
    let nodes = commands::rollout_nodes(config, rollout.id).await?;
    match output {
        Output::Json => nodes.iter().try_for_each(json),
        // Who is where it should be is counted above.
        Output::Text => nodes
            .iter()
            .filter(|node| !matches!(node.stage, Stage::Succeeded | Stage::Pending))
            .try_for_each(|node| print(&line_of(node))),
    }
}

pub(super) fn show(rollout: &RolloutView, output: Output) -> Result<(), Failure> {
    match output {
        Output::Text => print(&line(rollout)),
        Output::Json => json(rollout),
    }
}

fn show_plan(plan: &RolloutPlan, output: Output) -> Result<(), Failure> {
    if output == Output::Json {
        return json(plan);
    }
    let mut waves = BTreeMap::<u8, usize>::new();
    for node in plan.nodes.iter().filter(|node| node.stage != Stage::Skipped) {
        *waves.entry(node.wave).or_default() += 1;
    }
    let waves = waves.iter().map(|(wave, nodes)| match wave {
        0 => format!("{nodes} canaries"),
        wave => format!("wave {wave}: {nodes}"),
    });
    print(&waves.collect::<Vec<_>>().join(", "))?;
    plan.nodes.iter().try_for_each(|node| print(&line_of(node)))
}

fn json(value: &impl Serialize) -> Result<(), Failure> {
    print(&serde_json::to_string(value).map_err(io::Error::from)?)
}

/// A rollout on one line.
fn line(rollout: &RolloutView) -> String {
    let whom = match (&rollout.node_id, &rollout.group) {
        (Some(node), _) => format!("node {node}"),
        (None, Some(group)) => format!("group {group}"),
        (None, None) => "all nodes".to_owned(),
    };
    let more = match &rollout.detail {
        State::Soaking { until } => format!(" until {until}"),
        State::Rolling { wave, .. } | State::Reverting { wave } => {
            format!(" {wave}/{}", rollout.settings.waves.len())
        }
        State::Paused { by, from } => format!(" ({} in {})", word(by), from.as_str()),
        State::Halted { criterion, from } => format!(" ({} in {})", word(criterion), from.as_str()),
        _ => String::new(),
    };
    let counted = rollout.nodes.iter().filter(|(_, nodes)| **nodes > 0);
    let counted: Vec<_> = counted.map(|(stage, nodes)| format!("{nodes} {stage}")).collect();
    let (id, version, state) = (rollout.id, &rollout.version, &rollout.state);
    format!("{id}  {version}  {whom}  {state}{more}  {}", counted.join(", ")).trim_end().to_owned()
}

/// As JSON writes it, without the quotes.
fn word(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default().trim_matches('"').to_owned()
}

/// A node on one line.
fn line_of(node: &RolloutNode) -> String {
    let name = node.name.as_deref().unwrap_or_default();
    let reason = match (&node.code, &node.reason) {
        (Some(code), Some(reason)) => format!("{code}: {reason}"),
        (Some(code), None) => code.clone(),
        (None, reason) => reason.clone().unwrap_or_default(),
    };
    format!("{}  wave {}  {:<12}  {name}  {reason}", node.node_id, node.wave, node.stage.as_str())
        .trim_end()
        .to_owned()
}

#[derive(Args)]
pub(super) struct PinNode {
    /// The node's id or name.
    #[arg(value_name = "NODE")]
    node: String,
    /// The version to keep it at.
    #[arg(value_name = "VERSION")]
    version: ReleaseVersion,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Args)]
pub(super) struct UnpinNode {
    /// The node's id or name.
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Args)]
pub(super) struct UpdateNode {
    /// The node's id or name.
    #[arg(value_name = "NODE")]
    node: String,
    /// The version. [default: the newest of the index of releases]
    #[arg(value_name = "VERSION")]
    version: Option<ReleaseVersion>,
    #[command(flatten)]
    common: Common,
}

pub(super) async fn pin(args: PinNode) -> Result<(), Failure> {
    let config = config(&args.place, &Table::new())?;
    let id = commands::pin_node(&config, args.whose.into(), &args.node, Some(&args.version)).await?;
    print(&format!("the node {id} stays at {}", args.version))
}

pub(super) async fn unpin(args: UnpinNode) -> Result<(), Failure> {
    let config = config(&args.place, &Table::new())?;
    let id = commands::pin_node(&config, args.whose.into(), &args.node, None).await?;
    print(&format!("the node {id} is kept at no version"))
}

pub(super) async fn update(args: UpdateNode) -> Result<(), Failure> {
    let Common { place, whose, output } = args.common;
    let config = config(&place, &Table::new())?;
    show(&commands::update_node(&config, whose.into(), &args.node, args.version).await?, output)
}
