//! `controller-stub node …`: registering nodes, listing them, and their tokens.

use std::{collections::BTreeMap, io, time::Duration};

use aio_protocol::{node::NodeStatus, release::ReleaseVersion, telemetry::Health, time::Timestamp};
use clap::{Args, Subcommand, ValueEnum};

use toml::Table;

use super::{Failure, Output, Place, Whose, config, print, rollout};
use crate::{
    commands::{self, Added, Concerned, Issue, Listed, NodeChange, Purpose, Which},
    config::Config,
};

/// What one `node add` may register: so many share one commit, and a server that runs waits for it.
const MOST_AT_ONCE: i64 = 10_000;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Register nodes and print for each the one command to run on it.
    Add(AddNodes),
    /// List an organisation's nodes by name: gpu-2 before gpu-10.
    List(ListNodes),
    /// Give a node another name.
    Rename(RenameNode),
    /// Set labels of a node (KEY=VALUE) or take them away (KEY-).
    Label(LabelNode),
    /// Keep a node at a version: no rollout offers it another.
    Pin(rollout::PinNode),
    /// Take a node's pin away.
    Unpin(rollout::UnpinNode),
    /// Update one node now, urgently, whatever its group's rollout says; a faulty release is tried
    /// again.
    Update(rollout::UpdateNode),
    /// Drop nodes that were decommissioned long ago, with all that is kept of them.
    Purge(Purge),
    /// A node's tokens.
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Make new tokens for nodes, to install them with another release or again; those that they
    /// have stay valid.
    Add(AddTokens),
    /// Revoke every token of a node, or all that were issued before a time, and close the workers'
    /// connections.
    Revoke(RevokeTokens),
}

#[derive(Args)]
pub(super) struct ListNodes {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    whose: Whose,
    /// Only nodes with one of these, separated by commas.
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = status)]
    status: Vec<NodeStatus>,
    /// Only nodes with all of these labels, separated by commas: KEY=VALUE, or KEY with any value.
    #[arg(long, value_name = "LABEL", value_delimiter = ',')]
    label: Vec<String>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(super) struct RenameNode {
    #[command(flatten)]
    node: NamedNode,
    /// Its new name, which no other node in service has.
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Args)]
pub(super) struct LabelNode {
    #[command(flatten)]
    node: NamedNode,
    /// KEY=VALUE sets a label, KEY- takes it away.
    #[arg(value_name = "LABEL", required = true)]
    labels: Vec<String>,
}

#[derive(Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["node", "issued_before"])))]
#[command(after_help = "\
A restored backup accepts tokens that were revoked after it was made. Revoke what was issued before the moment of its restoration then, and make \
new tokens: node token add --all.")]
pub(super) struct RevokeTokens {
    /// The node's id or name.
    #[arg(value_name = "NODE")]
    node: Option<String>,
    /// Every token that was issued before this time, e.g. 2026-11-28T03:00:00Z.
    #[arg(long, value_name = "TIME")]
    issued_before: Option<Timestamp>,
    /// Those of every organisation.
    #[arg(long, requires = "issued_before", conflicts_with_all = ["node", "org", "user"])]
    every_organisation: bool,
    /// Say how many nodes are concerned, and change nothing.
    #[arg(long, requires = "issued_before", conflicts_with = "node")]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Args)]
pub(super) struct Purge {
    /// Those that were decommissioned so long ago, e.g. 90d.
    #[arg(long, value_name = "AGE", value_parser = age)]
    inactive_for: Duration,
    /// Those of every organisation.
    #[arg(long, conflicts_with_all = ["org", "user"])]
    every_organisation: bool,
    /// Say how many there are, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    whose: Whose,
}

fn age(text: &str) -> Result<Duration, String> {
    let span: jiff::Span = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    span.to_duration(days).and_then(Duration::try_from).map_err(|error| error.to_string())
}

#[derive(Args)]
pub(super) struct NamedNode {
    /// The node's id or name.
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    whose: Whose,
}

fn status(text: &str) -> Result<NodeStatus, String> {
    NodeStatus::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
        let all = NodeStatus::ALL.map(NodeStatus::as_str).join(", ");
        format!("must be one of {all}")
    })
}

#[derive(Args)]
#[command(after_help = "\
All of them are registered, or none: a name that cannot be one, that stands twice, or that a node in service has refuses them all. What is \
printed holds the nodes' tokens: where it is written to a file, nobody else should be able to read it (umask 077).")]
pub(super) struct AddNodes {
    /// The nodes' names; with --count, what they begin with.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Register so many nodes and number them: NAME-001, NAME-002, …
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_AT_ONCE))]
    count: Option<u32>,
    /// The number to begin with.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "count")]
    first: u32,
    #[command(flatten)]
    issued: Issued,
}

#[derive(Args)]
#[command(after_help = "\
What is printed holds the nodes' tokens: where it is written to a file, nobody else should be able to read it (umask 077).")]
pub(super) struct AddTokens {
    /// The nodes' ids or names.
    #[arg(value_name = "NODE", required_unless_present = "all")]
    nodes: Vec<String>,
    /// Every node of the organisation that is in service.
    #[arg(long, conflicts_with = "nodes")]
    all: bool,
    #[command(flatten)]
    issued: Issued,
}

#[derive(Args)]
pub(super) struct Issued {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    whose: Whose,
    /// For how many seconds the token lasts: an hour to a year.
    #[arg(long, value_name = "SECONDS", default_value_t = 31_536_000, value_parser = clap::value_parser!(u64).range(3600..=31_536_000))]
    expires_in: u64,
    /// The release that the token installs, e.g. v1.0.0; it must be published. [default:
    /// DEFAULT_DAEMON_VERSION]
    #[arg(long, value_name = "VERSION")]
    daemon_version: Option<ReleaseVersion>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = OutputAdded::Text)]
    output: OutputAdded,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputAdded {
    /// The command to run on each node; of several nodes, each below its name.
    Text,
    /// One JSON object for each node.
    Json,
    /// An Ansible inventory in YAML, with each node's token as a variable of its host.
    Ansible,
    /// The user-data with which cloud-init installs one node at its machine's first boot; it holds
    /// the node's token.
    CloudInit,
}

pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Add(args) => add(args).await,
        Command::List(args) => list(args).await,
        Command::Rename(args) => rename(args).await,
        Command::Label(args) => label(args).await,
        Command::Pin(args) => rollout::pin(args).await,
        Command::Unpin(args) => rollout::unpin(args).await,
        Command::Update(args) => rollout::update(args).await,
        Command::Purge(args) => purge(args).await,
        Command::Token(TokenCommand::Add(args)) => add_tokens(args).await,
        Command::Token(TokenCommand::Revoke(args)) => revoke_tokens(args).await,
    }
}

async fn add(args: AddNodes) -> Result<(), Failure> {
    let names = match (args.count, args.names.as_slice()) {
        (None, _) => args.names,
        (Some(count), [prefix]) => commands::numbered(prefix, args.first, count)?,
        (Some(_), _) => {
            return Err(commands::CommandError::Numbers(
                "--count numbers the nodes of one NAME, and several are given".to_owned(),
            )
            .into());
        }
    };
    let (config, issue, output) = args.issued.taken_apart()?;
    show_added(&commands::add_nodes(&config, names, issue).await?, output)
}

async fn add_tokens(args: AddTokens) -> Result<(), Failure> {
    let (config, issue, output) = args.issued.taken_apart()?;
    let which = if args.all { Which::All } else { Which::These(args.nodes) };
    show_added(&commands::add_tokens(&config, which, issue).await?, output)
}

impl Issued {
    fn taken_apart(self) -> Result<(Config, Issue, OutputAdded), Failure> {
        let config = config(&self.place, &Table::new())?;
        let purpose = match self.output {
            OutputAdded::Text | OutputAdded::Json => Purpose::Reading,
            OutputAdded::Ansible => Purpose::Inventory,
            OutputAdded::CloudInit => Purpose::UserData,
        };
        let issue = Issue {
            whose: self.whose.into(),
            lasts_secs: self.expires_in,
            version: self.daemon_version,
            purpose,
        };
        Ok((config, issue, self.output))
    }
}

fn show_added(added: &Added, output: OutputAdded) -> Result<(), Failure> {
    match output {
        OutputAdded::Text => {
            let several = added.nodes.len() > 1;
            for node in &added.nodes {
                if several {
                    print(&format!("# {}", node.name))?;
                }
                print(&node.command)?;
            }
        }
        OutputAdded::Json => {
            for node in &added.nodes {
                print(&serde_json::to_string(node).map_err(io::Error::from)?)?;
            }
        }
        OutputAdded::CloudInit => {
            for user_data in added.nodes.iter().filter_map(commands::user_data) {
                print(user_data.trim_end())?;
            }
        }
        OutputAdded::Ansible => print(commands::inventory(added).map_err(io::Error::from)?.trim_end())?,
    }
    Ok(())
}

async fn list(args: ListNodes) -> Result<(), Failure> {
    let config = config(&args.place, &Table::new())?;
    let which = Listed { statuses: args.status, labels: args.label };
    for node in commands::list_nodes(&config, args.whose.into(), which).await? {
        match args.output {
            Output::Text => {
                let seen = node.last_seen_at.map_or_else(|| "never seen".to_owned(), |at| at.to_string());
                let health = node.gpu_health.map_or("–", Health::as_str);
                let status = node.status.as_str();
                print(&format!("{}  {status:<11}  {health:<9}  {seen:<24}  {}", node.node_id, node.name))?;
            }
            Output::Json => print(&serde_json::to_string(&node).map_err(io::Error::from)?)?,
        }
    }
    Ok(())
}

async fn rename(args: RenameNode) -> Result<(), Failure> {
    change(args.node, NodeChange { name: Some(args.name), ..NodeChange::default() }).await
}

async fn label(args: LabelNode) -> Result<(), Failure> {
    let mut labels = BTreeMap::new();
    for text in args.labels {
        match (text.split_once('='), text.strip_suffix('-')) {
            (Some((key, value)), _) => labels.insert(key.to_owned(), Some(value.to_owned())),
            (None, Some(key)) => labels.insert(key.to_owned(), None),
            (None, None) => {
                let problem = format!("`{text}` is neither KEY=VALUE nor KEY-");
                return Err(commands::CommandError::Label(problem).into());
            }
        };
    }
    change(args.node, NodeChange { labels, ..NodeChange::default() }).await
}

async fn change(named: NamedNode, change: NodeChange) -> Result<(), Failure> {
    let config = config(&named.place, &Table::new())?;
    let node = commands::change_node(&config, named.whose.into(), &named.node, change).await?;
    let labels: Vec<_> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    print(format!("{}  {}  {}", node.node_id, node.name, labels.join(",")).trim_end())
}

async fn revoke_tokens(args: RevokeTokens) -> Result<(), Failure> {
    let config = config(&args.place, &Table::new())?;
    if let Some(before) = args.issued_before {
        let concerned = concerned(args.every_organisation, args.whose);
        let nodes = commands::revoke_issued_before(&config, concerned, before, args.dry_run).await?;
        let revoked = if args.dry_run { "would be revoked" } else { "are revoked" };
        return print(&format!("the tokens of {nodes} nodes that were issued before {before} {revoked}"));
    }
    let node = commands::revoke_tokens(&config, args.whose.into(), &args.node.unwrap_or_default()).await?;
    print(&format!("the tokens of node {node} are revoked"))
}

async fn purge(args: Purge) -> Result<(), Failure> {
    let config = config(&args.place, &Table::new())?;
    let concerned = concerned(args.every_organisation, args.whose);
    let nodes = commands::purge_nodes(&config, concerned, args.inactive_for, args.dry_run).await?;
    print(&format!("{nodes} nodes {}", if args.dry_run { "would be dropped" } else { "were dropped" }))
}

fn concerned(every_organisation: bool, whose: Whose) -> Concerned {
    if every_organisation { Concerned::All } else { Concerned::One(whose.into()) }
}
