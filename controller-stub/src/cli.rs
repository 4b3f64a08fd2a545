//! The command line: what can be said, and how answers and errors are printed. Logs go to standard error, so that standard output
//! holds the answer alone.

use std::{
    error::Error,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use aio_protocol::{
    error_code::ErrorCode,
    ids::{NodeId, OwnerId},
    release::{Platform, build},
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    commands::{self, For, Outcome},
    config::{Config, ConfigError, Settings},
    serve::Server,
};

/// A user token lasts this long unless --expires-in says otherwise: 30 days.
const USER_TOKEN_LIFE_SECS: u64 = 30 * 86_400;

/// AIWM's token, status and NOTI endpoints: for tests and for small deployments.
#[derive(Parser)]
#[command(name = "controller-stub", version = build::version())]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API, the node gateway, the releases and the built-in NOTI.
    Serve(Serve),
    /// Print a token for a user of the API.
    UserToken(UserToken),
    /// Register nodes.
    #[command(subcommand)]
    Node(NodeCommand),
    /// The releases that nodes are offered.
    #[command(subcommand)]
    Releases(ReleasesCommand),
}

#[derive(Args)]
struct Place {
    /// The folder of the database and the secrets; made when it is not there.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// A TOML file; .env.example says what may stand in it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    place: Place,
    /// Say whether it would start with this configuration and these secrets, and do nothing else.
    #[arg(long)]
    check: bool,
    /// Where to listen; port 0 takes a free one. [default: 127.0.0.1:3305]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The folder of the releases to serve: v1.0.0/linux-amd64, v1.0.0/aio-installer-linux-amd64.
    #[arg(long, value_name = "DIR")]
    releases: Option<PathBuf>,
    /// How long a silent worker counts as online. [default: 120s]
    #[arg(long, value_name = "DURATION")]
    heartbeat_timeout: Option<String>,
    /// The address that nodes reach this controller by. [default: the listening address]
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// The TLS certificate's chain in PEM, the server's own first; reloaded when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The TLS certificate's key in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve TLS with a certificate of a private authority, made on first start; tokens carry its fingerprint.
    #[arg(long, conflicts_with = "tls_cert")]
    tls_self_signed: bool,
    /// Allow plain HTTP on an address that other machines reach: for labs.
    #[arg(long)]
    insecure_http: bool,
}

#[derive(Args)]
struct Whose {
    /// The organisation. [default: the one that the first start made]
    #[arg(long, value_name = "ID")]
    org: Option<OwnerId>,
    /// The user. [default: the one that the first start made]
    #[arg(long, value_name = "ID")]
    user: Option<OwnerId>,
}

#[derive(Args)]
struct UserToken {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    whose: Whose,
    /// What the user may do; may be given several times.
    #[arg(long, value_name = "ROLE", default_value = "organization.owner")]
    role: Vec<String>,
    /// For how many seconds the token lasts.
    #[arg(long, value_name = "SECONDS", default_value_t = USER_TOKEN_LIFE_SECS, value_parser = clap::value_parser!(u64).range(1..=315_360_000))]
    expires_in: u64,
}

#[derive(Subcommand)]
enum NodeCommand {
    /// Register nodes and print for each the one command to run on it.
    Add(AddNode),
    /// List an organisation's nodes by name.
    List(ListNodes),
    /// A node's tokens.
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Withdraw every token of a node, and close its worker's connection.
    Revoke(RevokeTokens),
}

#[derive(Subcommand)]
enum ReleasesCommand {
    /// Verify releases and put them into the folder that the server offers, which may run meanwhile.
    Add(AddReleases),
    /// List the releases in that folder, oldest first.
    List(ListReleases),
}

#[derive(Args)]
struct AddReleases {
    /// A version's folder, as `cargo xtask release` writes it, or a folder of such.
    #[arg(value_name = "DIR")]
    from: PathBuf,
    #[command(flatten)]
    offered: Offered,
}

#[derive(Args)]
struct ListReleases {
    #[command(flatten)]
    offered: Offered,
}

#[derive(Args)]
struct Offered {
    #[command(flatten)]
    place: Place,
    /// The folder of the releases. [default: the one that the server was started with]
    #[arg(long, value_name = "DIR")]
    releases: Option<PathBuf>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
struct ListNodes {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    whose: Whose,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
struct RevokeTokens {
    /// The node's id.
    #[arg(value_name = "NODE")]
    node: NodeId,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct AddNode {
    /// The nodes' names.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    whose: Whose,
    /// For how many seconds the token lasts: an hour to a year.
    #[arg(long, value_name = "SECONDS", default_value_t = 31_536_000, value_parser = clap::value_parser!(u64).range(3600..=31_536_000))]
    expires_in: u64,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line for each node.
    Text,
    /// One JSON object for each node.
    Json,
}

/// An error with its code.
struct Failure {
    code: ErrorCode,
    error: Box<dyn Error + Send + Sync>,
}

macro_rules! failures {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self { code: error.code(), error: Box::new(error) }
            }
        })*
    };
}

failures!(ConfigError, crate::serve::StartError, commands::CommandError);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { code: ErrorCode::FileFailed, error: Box::new(error) }
    }
}

/// Does what the command line says.
pub async fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Serve(args) => serve(args).await,
        Command::UserToken(args) => user_token(args).await,
        Command::Node(NodeCommand::Add(args)) => add_node(args).await,
        Command::Node(NodeCommand::List(args)) => list_nodes(args).await,
        Command::Node(NodeCommand::Token(TokenCommand::Revoke(args))) => revoke_tokens(args).await,
        Command::Releases(ReleasesCommand::Add(args)) => add_releases(args).await,
        Command::Releases(ReleasesCommand::List(args)) => list_releases(args).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, error }) => {
            eprintln!("error[{code}]: {}\n  cure: {}", chain(&*error), code.cure());
            ExitCode::from(code.exit_status())
        }
    }
}

async fn serve(args: Serve) -> Result<(), Failure> {
    let flags = Settings {
        listen: args.listen,
        releases: args.releases.map(|path| path.to_string_lossy().into_owned()),
        heartbeat_timeout: args.heartbeat_timeout,
        public_url: args.public_url,
        tls_cert: args.tls_cert.map(|path| path.to_string_lossy().into_owned()),
        tls_key: args.tls_key.map(|path| path.to_string_lossy().into_owned()),
        tls_self_signed: args.tls_self_signed.then(|| "true".to_owned()),
        insecure_http: args.insecure_http.then(|| "true".to_owned()),
        ..Settings::default()
    };
    let config = config(&args.place, flags)?;
    if args.check {
        Server::check(&config)?;
        return print("the configuration and the secrets can be used");
    }
    // Before the first line is printed: whoever reads it may send a signal at once.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let server = Server::start(config).await?;
    print(&format!("listening on {}", server.url()))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let haste = server.haste();
    let impatience = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        haste.cancel();
    });
    server.shutdown().await;
    impatience.abort();
    Ok(())
}

async fn user_token(args: UserToken) -> Result<(), Failure> {
    let config = config(&args.place, Settings::default())?;
    let token = commands::user_token(&config, args.whose.into(), args.role, args.expires_in).await?;
    print(&token)
}

async fn add_node(args: AddNode) -> Result<(), Failure> {
    let config = config(&args.place, Settings::default())?;
    for added in commands::add_nodes(&config, args.names, args.whose.into(), args.expires_in).await? {
        match args.output {
            Output::Text => print(&added.command)?,
            Output::Json => print(&serde_json::to_string(&added).map_err(io::Error::from)?)?,
        }
    }
    Ok(())
}

async fn list_nodes(args: ListNodes) -> Result<(), Failure> {
    let config = config(&args.place, Settings::default())?;
    for node in commands::list_nodes(&config, args.whose.into()).await? {
        match args.output {
            Output::Text => {
                let seen = node.last_seen_at.map_or_else(|| "never seen".to_owned(), |at| at.to_string());
                print(&format!("{}  {:<11}  {seen:<24}  {}", node.node_id, node.status.as_str(), node.name))?;
            }
            Output::Json => print(&serde_json::to_string(&node).map_err(io::Error::from)?)?,
        }
    }
    Ok(())
}

async fn revoke_tokens(args: RevokeTokens) -> Result<(), Failure> {
    let config = config(&args.place, Settings::default())?;
    commands::revoke_tokens(&config, &args.node).await?;
    print(&format!("the tokens of node {} open nothing any more", args.node))
}

async fn add_releases(args: AddReleases) -> Result<(), Failure> {
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

async fn list_releases(args: ListReleases) -> Result<(), Failure> {
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
    fn config(&self) -> Result<Config, ConfigError> {
        let releases = self.releases.as_ref().map(|path| path.to_string_lossy().into_owned());
        config(&self.place, Settings { releases, ..Settings::default() })
    }
}

/// Flags over environment over file.
fn config(place: &Place, flags: Settings) -> Result<Config, ConfigError> {
    let file = place.config.as_deref().map(Settings::from_file).transpose()?.unwrap_or_default();
    let environment = Settings::from_environment(|name| std::env::var(name).ok());
    Config::check(&place.data_dir, flags.over(environment).over(file))
}

fn print(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// An error and what it came from, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut error = error;
    while let Some(source) = error.source() {
        text = format!("{text}: {source}");
        error = source;
    }
    text
}

impl From<Whose> for For {
    fn from(whose: Whose) -> Self {
        Self { org: whose.org, user: whose.user }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_documented_command_lines_are_understood() {
        Cli::command().debug_assert();
        for line in [
            "controller-stub serve --listen 127.0.0.1:3305 --data-dir d --releases r --heartbeat-timeout 120s",
            "controller-stub user-token --data-dir d --org o --user u --role organization.owner",
            "controller-stub node list --data-dir d --output json",
            "controller-stub node token revoke 69396100cd71623c7bbfbfee --data-dir d",
            "controller-stub releases add v1.0.0 --data-dir d --releases r --output json",
            "controller-stub releases list --data-dir d",
            "controller-stub node add gpu-01 gpu-02 --data-dir d --expires-in 3600 --output json",
        ] {
            Cli::try_parse_from(line.split(' ')).map(drop).unwrap();
        }
        for line in [
            "controller-stub serve",
            "controller-stub node token revoke gpu-01 --data-dir d",
            "controller-stub node add --data-dir d",
            "controller-stub node add n --data-dir d --expires-in 3599",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
