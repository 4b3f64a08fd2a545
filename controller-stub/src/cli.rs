//! The command line: what can be said, and how answers and errors are printed. Logs go to standard error, so
//! that standard output holds the answer alone. What is said of nodes and of releases stands in files of its
//! own.

mod alarms;
mod audit;
mod controller;
mod delivery;
#[cfg(feature = "pages")]
mod login;
mod migrate;
mod node;
mod own_program;
mod releases;
mod rollout;
mod webhook;

use std::{
    convert::Infallible,
    error::Error,
    fs,
    io::{self, Write},
    ops::Not,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use aio_protocol::{error_code::ErrorCode, ids::OwnerId, release::build};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use sd_notify::NotifyState;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use toml::Table;

use crate::{
    commands::{self, For},
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
    /// Print a link that signs a user in to the pages, once.
    #[cfg(feature = "pages")]
    Login(login::Login),
    /// End a user's sessions on the pages.
    #[cfg(feature = "pages")]
    Logout(login::Logout),
    /// Register nodes.
    #[command(subcommand)]
    Node(node::Command),
    /// The releases that nodes are offered.
    #[command(subcommand)]
    Releases(releases::Command),
    /// Put another version of this program in its place, for a copy that no package owns. Restarts nothing.
    SelfUpdate(own_program::SelfUpdate),
    /// Bring nodes to another version.
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// Events on their way to NOTI.
    #[command(subcommand)]
    Delivery(delivery::Command),
    /// Where an organisation is told of its events, beside NOTI.
    #[command(subcommand)]
    Webhook(webhook::Command),
    /// Look at the controllers that serve the database together.
    #[command(subcommand)]
    Controller(controller::Command),
    /// Carry the database over from SQLite into an empty one of PostgreSQL, while no controller serves
    /// either.
    Migrate(migrate::Migrate),
    /// What a person should look at.
    #[command(subcommand)]
    Alarms(alarms::Command),
    /// Print what people did: every change that was asked for over the API or on the command line,
    /// newest first.
    Audit(audit::Audit),
    /// Write the manual's pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder; it must be there.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

#[derive(Args)]
struct Place {
    /// The folder of the database and the secrets; made when it is not there. [default: the Debian
    /// package's, with its configuration, where it is installed]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A TOML file; .env.example says what may stand in it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Where the Debian package's service has its database and secrets (systemd/aio-controller-stub.service).
const PACKAGED_DATA_DIR: &str = "/var/lib/aio-controller-stub";

/// What that service goes by.
const PACKAGED_CONFIG: &str = "/etc/aio-controller-stub/config.toml";

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    place: Place,
    /// Say whether it would start with this configuration and these secrets, and do nothing else.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Settings as flags; a field is called what the setting is.
#[derive(Args, Serialize)]
struct Flags {
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
    /// Serve TLS with a certificate of a private authority, made on first start; tokens carry its
    /// fingerprint.
    #[arg(long, conflicts_with = "tls_cert")]
    #[serde(skip_serializing_if = "Not::not")]
    tls_self_signed: bool,
    /// Allow plain HTTP on an address that other machines reach: for labs.
    #[arg(long)]
    #[serde(skip_serializing_if = "Not::not")]
    insecure_http: bool,
    /// Speak as AIWM's services do, too: its REST, and Socket.IO at /socket.io/. With `strict`,
    /// answer 403 and 500 for unknown and malformed ids, as they do.
    #[arg(long, value_name = "strict", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    aiwm: Option<String>,
    /// Serve /_double/faults and /_double/recording, for tests of what speaks to AIWM. Needs --aiwm
    /// and a loopback address.
    #[arg(long = "double")]
    #[serde(skip_serializing_if = "Not::not")]
    aiwm_double: bool,
}

#[derive(Args, Clone)]
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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line for each.
    Text,
    /// One JSON object for each.
    Json,
}

/// An error with its code.
struct Failure {
    code: ErrorCode,
    error: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// Whether it is that nobody reads standard output any more.
    fn is_closed_pipe(&self) -> bool {
        let mut next: Option<&(dyn Error + 'static)> = Some(&*self.error);
        while let Some(error) = next {
            if error.downcast_ref::<io::Error>().is_some_and(|it| it.kind() == io::ErrorKind::BrokenPipe) {
                return true;
            }
            next = error.source();
        }
        false
    }
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

failures!(ConfigError, crate::serve::StartError, commands::CommandError, commands::SelfUpdateError);

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
        #[cfg(feature = "pages")]
        Command::Login(args) => login::login(args).await,
        #[cfg(feature = "pages")]
        Command::Logout(args) => login::logout(args).await,
        Command::Node(command) => node::run(command).await,
        Command::Releases(command) => releases::run(command).await,
        Command::SelfUpdate(args) => own_program::run(args).await,
        Command::Rollout(command) => rollout::run(command).await,
        Command::Delivery(command) => delivery::run(command).await,
        Command::Webhook(command) => webhook::run(command).await,
        Command::Controller(command) => controller::run(command).await,
        Command::Migrate(args) => migrate::run(args).await,
        Command::Alarms(command) => alarms::run(command).await,
        Command::Audit(args) => audit::run(args).await,
        Command::Man { folder } => clap_mangen::generate_to(Cli::command(), folder).map_err(Failure::from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the answer has had enough of it.
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "{}", failure_text(&failure));
            ExitCode::from(failure.code.exit_status())
        }
    }
}

fn failure_text(Failure { code, error }: &Failure) -> String {
    format!("error[{code}]: {}\n  cure: {}", chain(&**error), code.cure())
}

/// The longest stop without the lame-duck time: what workers, tasks and the database may take.
const STOP_TIME: Duration = Duration::from_secs(20);

async fn serve(args: Serve) -> Result<(), Failure> {
    let config = config(&args.place, &args.flags)?;
    if args.check {
        Server::check(&config).await?;
        return print("the configuration and the secrets can be used");
    }
    // Before the first line is printed: whoever reads it may send a signal at once.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Whoever has certificates listens for it and reads them again; to everybody else a reload is
    // nothing, and not the end.
    let _hang_up = signal(SignalKind::hangup())?;
    let lame_duck = config.shutdown_lame_duck;
    let standby = config.standby;
    let mut server = tokio::select! {
        started = Server::start(config) => started?,
        never = stand_by(), if standby => match never {},
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    // Whoever does not listen for it misses nothing else.
    let _ = print(&format!("listening on {}", server.url()));
    // Whoever did not start it as a service hears nothing, and misses nothing.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    server.keep_watchdog();
    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        failed = server.failed() => Some(failed),
    };
    if let Some(failed) = &failed {
        tracing::error!(
            error = failed as &dyn Error,
            "the controller ends, because it cannot do its work any more"
        );
    }
    let haste = server.haste();
    let impatience = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        haste.cancel();
    });
    let longest = u32::try_from((lame_duck + STOP_TIME).as_micros()).unwrap_or(u32::MAX);
    let _ = sd_notify::notify(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(longest)]);
    server.shutdown().await;
    impatience.abort();
    match failed {
        None => Ok(()),
        Some(failed) => Err(Failure { code: ErrorCode::Internal, error: Box::new(failed) }),
    }
}

/// Tells the service manager that a standby is there and gets on: when it will serve, nobody knows.
async fn stand_by() -> Infallible {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let interval = sd_notify::watchdog_enabled().unwrap_or(STOP_TIME);
    let mut tick = tokio::time::interval(interval / 3);
    loop {
        tick.tick().await;
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
    }
}

async fn user_token(args: UserToken) -> Result<(), Failure> {
    let config = config(&args.place, &Table::new())?;
    let token = commands::user_token(&config, args.whose.into(), args.role, args.expires_in).await?;
    print(&token)
}

/// Flags over environment over file.
fn config(place: &Place, flags: &impl Serialize) -> Result<Config, Failure> {
    let (data_dir, file) = place.or_packaged(Path::new(PACKAGED_DATA_DIR))?;
    let flags = Table::try_from(flags)
        .map_err(|error| Failure { code: ErrorCode::Usage, error: error.to_string().into() })?;
    let settings = Settings::gather(file.as_deref(), |name| std::env::var(name).ok(), flags)?;
    Ok(Config::check(&data_dir, settings)?)
}

impl Place {
    /// The folder and the file that were named, or the package's. What root would write into
    /// another user's folder, that user could not open any more.
    fn or_packaged(&self, packaged: &Path) -> Result<(PathBuf, Option<PathBuf>), Failure> {
        let config = self.config.clone();
        let (data_dir, config) = match &self.data_dir {
            Some(data_dir) => (data_dir.clone(), config),
            None if packaged.is_dir() => (packaged.to_owned(), config.or(Some(PACKAGED_CONFIG.into()))),
            None => {
                let message =
                    format!("--data-dir is missing, and there is no {} of a package", packaged.display());
                return Err(Failure { code: ErrorCode::Usage, error: message.into() });
            }
        };
        let owner = fs::metadata(&data_dir).map(|metadata| metadata.uid());
        if let Ok(owner @ 1..) = owner
            && rustix::process::geteuid().is_root()
        {
            let message = format!(
                "{} belongs to the user {owner}, and root's files in it would be closed to them: sudo -u '#{owner}' controller-stub …",
                data_dir.display()
            );
            return Err(Failure { code: ErrorCode::Usage, error: message.into() });
        }
        Ok((data_dir, config))
    }
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
    use super::*;

    #[test]
    fn the_documented_command_lines_are_understood() {
        Cli::command().debug_assert();
        for line in [
            "controller-stub serve --listen 127.0.0.1:3305 --data-dir d --releases r --heartbeat-timeout 120s",
            "controller-stub serve --data-dir d --aiwm",
            "controller-stub serve --aiwm=strict --double --data-dir d",
            "controller-stub user-token --data-dir d --org o --user u --role organization.owner",
            #[cfg(feature = "pages")]
            "controller-stub login --data-dir d --org o --user u --role organization.viewer --expires-in 3600 --valid-for 60",
            #[cfg(feature = "pages")]
            "controller-stub logout --data-dir d --all",
            "controller-stub node list --data-dir d --output json",
            "controller-stub node token revoke 69396100cd71623c7bbfbfee --data-dir d",
            "controller-stub releases add v1.0.0 --data-dir d --releases r --output json",
            "controller-stub releases list --data-dir d",
            "controller-stub self-update --from https://releases.example/aio --release-key RWQ --version v1.1.0",
            "controller-stub releases fetch --from github:o/r --data-dir d --token-file t --every 1h",
            "controller-stub releases fetch --from s3://b/p --s3-endpoint https://e --s3-region r --version v1.1.0",
            "controller-stub node add gpu-01 gpu-02 --data-dir d --expires-in 3600 --output json",
            "controller-stub node token add --all --data-dir d --daemon-version v1.1.0 --output ansible",
            "controller-stub node token add 69396100cd71623c7bbfbfee --data-dir d",
            "controller-stub node token add gpu-01 gpu-02 --data-dir d",
            "controller-stub node token revoke gpu-01 --data-dir d",
            "controller-stub node list --data-dir d --status online,offline --label rack=r7,gpu",
            "controller-stub node rename gpu-01 gpu-02 --data-dir d",
            "controller-stub node label gpu-01 rack=r7 zone- --data-dir d",
            "controller-stub rollout create v1.1.0 --data-dir d --group gpu --canaries 2% --soak 15m --waves 10,30,100 --urgent --dry-run",
            "controller-stub rollout list --data-dir d --output json",
            "controller-stub rollout status --data-dir d --follow",
            "controller-stub rollout pause 01890a5d-ac96-774b-bceb-302099a8057a --data-dir d",
            "controller-stub rollout abort --revert --data-dir d",
            "controller-stub node pin gpu-01 v1.0.0 --data-dir d",
            "controller-stub node unpin gpu-01 --data-dir d",
            "controller-stub node update gpu-01 v1.1.0 --data-dir d",
            "controller-stub delivery show --data-dir d --output json",
            "controller-stub delivery resume --data-dir d",
            "controller-stub controller list --data-dir d --output json",
            "controller-stub migrate --data-dir d --from sqlite:///var/lib/x.db --to postgres://aiwm@db.example/aiwm",
            "controller-stub audit --data-dir d --format csv --since 2025-12-11T12:00:00Z",
            "controller-stub node add --count 100 --first 101 gpu --data-dir d --output ansible",
        ] {
            Cli::try_parse_from(line.split(' ')).map(drop).unwrap();
        }
        for line in [
            "controller-stub node list --data-dir d --status up",
            "controller-stub node label gpu-01 --data-dir d",
            "controller-stub node pin gpu-01 --data-dir d",
            "controller-stub rollout create latest --data-dir d",
            "controller-stub rollout create v1.1.0 --data-dir d --canaries 0",
            "controller-stub node add --data-dir d",
            "controller-stub node token add --data-dir d",
            "controller-stub node token add 69396100cd71623c7bbfbfee --all --data-dir d",
            "controller-stub node add n --data-dir d --expires-in 3599",
            "controller-stub node add n --data-dir d --count 0",
            "controller-stub node add n --data-dir d --first 2",
            "controller-stub node list --data-dir d --output ansible",
            "controller-stub releases fetch --data-dir d",
            "controller-stub releases fetch --from github:o/r --every 1s",
            "controller-stub releases fetch --from github:o/r --every 1h --version v1.1.0",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn without_a_folder_the_package_s_is_meant_and_where_there_is_none_that_is_said() {
        let place = |data_dir: Option<&str>| Place { data_dir: data_dir.map(PathBuf::from), config: None };
        let packaged = tempfile::tempdir().unwrap();
        let (folder, config) = place(None).or_packaged(packaged.path()).ok().unwrap();
        assert_eq!((folder.as_path(), config), (packaged.path(), Some(PathBuf::from(PACKAGED_CONFIG))));
        let (folder, config) = place(Some("data")).or_packaged(packaged.path()).ok().unwrap();
        assert_eq!((folder.to_str(), config), (Some("data"), None), "a folder of one's own knows no package");
        let failure = place(None).or_packaged(Path::new("/nonexistent")).err().unwrap();
        assert_eq!(failure.code, ErrorCode::Usage);
    }
}
