//! `controller-stub releases …`: taking releases over, and listing them.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use aio_protocol::{
    error_code::ErrorCode,
    release::{Platform, ReleaseVersion, index::INDEX},
};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, Output, Place, Whose, config, failure_text, print, rollout};
use crate::{
    api::rollouts::RolloutView,
    clock,
    commands::{self, CommandError, For, Import, IndexSummary, Outcome, ReleaseSource},
    config::Config,
    releases::expiry::RENEWAL,
    rollout::Settings,
    rollouts::Draft,
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Verify releases and put them into the folder that the server offers, which may run meanwhile.
    Add(AddReleases),
    /// Fetch the newest release from where it is published, verify it, and put it into that folder. Its
    /// signatures must be of RELEASE_PUBLIC_KEY.
    Fetch(FetchReleases),
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

/// Where releases are published, and what proves that one may have them.
#[derive(Args)]
pub(super) struct SourceFlags {
    /// Where: github:OWNER/REPO, gitlab:[HOST/]GROUP/PROJECT, gitea:HOST/OWNER/REPO, s3://BUCKET/PREFIX, or
    /// https://… of a tree as `cargo xtask release` writes it.
    #[arg(long, value_name = "SOURCE")]
    from: String,
    /// A file with the token that the source asks for; for a bucket, with the access key's id, its secret,
    /// and the session's token if any, each on a line of its own.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The service that has the bucket. [default: Amazon's]
    #[arg(long, value_name = "URL")]
    s3_endpoint: Option<String>,
    /// The bucket's region. [default: us-east-1]
    #[arg(long, value_name = "REGION")]
    s3_region: Option<String>,
}

impl From<SourceFlags> for ReleaseSource {
    fn from(flags: SourceFlags) -> Self {
        Self {
            place: flags.from,
            token_file: flags.token_file,
            s3_endpoint: flags.s3_endpoint,
            s3_region: flags.s3_region,
        }
    }
}

#[derive(Args)]
pub(super) struct FetchReleases {
    #[command(flatten)]
    source: SourceFlags,
    /// This version, and not the newest; one that is there is fetched again.
    #[arg(long, value_name = "VERSION", conflicts_with = "every")]
    version: Option<ReleaseVersion>,
    /// Go on fetching at this interval, e.g. 1h, and try again after errors.
    #[arg(long, value_name = "DURATION", value_parser = every)]
    every: Option<Duration>,
    /// Start a rollout of what was fetched to the nodes with the label group=NAME, with the usual canaries
    /// and waves, unless there has been one. Without this, fetching starts no rollout.
    #[arg(long, value_name = "NAME")]
    rollout: Option<String>,
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    offered: Offered,
}

/// More often asks too much of a forge; more seldom is a job for a calendar.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(7 * 86_400));

fn every(text: &str) -> Result<Duration, String> {
    let wrong = || format!("must be between 1m and 7d, e.g. 1h, and not `{text}`");
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let span = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    let interval = Duration::try_from(span).map_err(|_| wrong())?;
    let (shortest, longest) = INTERVALS;
    (shortest..=longest).contains(&interval).then_some(interval).ok_or_else(wrong)
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
        Command::Fetch(args) => fetch(args).await,
        Command::List(args) => list(args).await,
    }
}

async fn add(args: AddReleases) -> Result<(), Failure> {
    let import = commands::add_releases(&args.offered.config()?, &args.from).await?;
    print_import(import, args.offered.output)
}

async fn fetch(args: FetchReleases) -> Result<(), Failure> {
    let (config, output) = (args.offered.config()?, args.offered.output);
    let fetching = Fetching {
        source: args.source.into(),
        version: args.version,
        rollout: args.rollout,
        whose: args.whose.into(),
    };
    let Some(interval) = args.every else {
        let (import, rollout) = fetching.turn(&config).await?;
        return print_turn(import, rollout.as_ref(), output);
    };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    loop {
        let turn = async {
            let wait = match fetching.turn(&config).await {
                Ok((import, rollout)) => {
                    print_turn(import, rollout.as_ref(), output)?;
                    Duration::ZERO
                }
                Err(error) => {
                    let wait = error.retry_after().unwrap_or_default();
                    // The next turn tries again; what is said is said to whoever reads the log.
                    let _ = writeln!(io::stderr(), "{}", failure_text(&Failure::from(error)));
                    wait
                }
            };
            tokio::time::sleep(jittered(interval).max(wait)).await;
            Ok::<_, Failure>(())
        };
        tokio::select! {
            done = turn => done?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

/// What each turn of fetching does.
struct Fetching {
    source: ReleaseSource,
    version: Option<ReleaseVersion>,
    /// The group that gets what was fetched.
    rollout: Option<String>,
    whose: For,
}

impl Fetching {
    async fn turn(&self, config: &Config) -> Result<(Import, Option<RolloutView>), CommandError> {
        let import = commands::fetch_releases(config, &self.source, self.version.as_ref()).await?;
        let Some(group) = &self.rollout else { return Ok((import, None)) };
        // What an earlier turn has fetched may not have been rolled out yet.
        let Some(version) = self.newest(config).await? else { return Ok((import, None)) };
        let group = Some(group.clone());
        let draft = Draft { version, group, only: None, settings: Settings::default() };
        let rollout = commands::create_first_rollout(config, self.whose.clone(), draft).await?;
        Ok((import, rollout))
    }

    /// The version that was asked for, or the newest that is here and that the index names.
    async fn newest(&self, config: &Config) -> Result<Option<ReleaseVersion>, CommandError> {
        if self.version.is_some() {
            return Ok(self.version.clone());
        }
        let here = commands::list_releases(config).await?.releases.into_iter();
        let indexed = here.filter(|release| release.indexed == Some(true)).map(|release| release.version);
        Ok(indexed.filter(|version| !version.is_prerelease()).max())
    }
}

fn print_turn(import: Import, started: Option<&RolloutView>, output: Output) -> Result<(), Failure> {
    print_import(import, output)?;
    started.map_or(Ok(()), |started| rollout::show(started, output))
}

/// Within a tenth of the interval, so that many controllers do not ask at once.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + fastrand::f64() * 0.2)
}

fn print_import(Import { versions, index }: Import, output: Output) -> Result<(), Failure> {
    for added in versions {
        match output {
            Output::Text => {
                let outcome = outcome(added.outcome);
                print(&format!("{}  {}  {outcome}", added.version, joined(&added.platforms)))?;
            }
            Output::Json => print(&serde_json::to_string(&added).map_err(io::Error::from)?)?,
        }
    }
    index.map_or(Ok(()), |index| print_index(&index, output))
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
