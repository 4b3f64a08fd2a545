//! The command line of an installation, for `aio-installer` and `aio-worker install` alike: arguments, environment, signals, exit status.
//! What happens between is `install`'s business, how it looks `present`'s.

mod bundle;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use aio_host::{layout::Layout, systemd::Systemd};
use aio_protocol::{error_code::ErrorCode, ids::NodeId, release::Platform};
use clap::{Args, builder::BoolishValueParser};
use secrecy::{ExposeSecret, SecretString};
use tokio::signal::unix::{SignalKind, signal};

pub use self::bundle::{BundleArgs, run_bundle};
use crate::{
    accounts::SystemAccounts,
    apply::Uneventful,
    command_line,
    console::Console,
    doctor::{self, Examination, Finding},
    install::{Goal, Host, Interrupt, Outcome, Request, Settings, Surroundings, install},
    present::{print_outcome, print_removed},
    release_key,
    service_log::Journald,
    token::{self, NodeToken},
    uninstall::{Removal, Removed, uninstall},
};
pub use crate::{
    failure::Failure,
    present::{Output, print_failure},
};

/// The way to the controller, and whom to trust on it.
#[derive(Debug, Clone, Args)]
struct WayArgs {
    /// A PEM file of authorities to trust beside the operating system's; an installation copies it for the daemon
    #[arg(long, value_name = "FILE", env = "AIO_CA_FILE")]
    ca_file: Option<PathBuf>,

    /// The proxy to the controller, http://HOST:PORT, instead of what config.toml, or HTTPS_PROXY and NO_PROXY say (which sudo keeps only when it is told to)
    #[arg(long, value_name = "URL", env = "AIO_PROXY", hide_env_values = true)]
    proxy: Option<String>,

    /// Allow plain http and ws to other machines: for labs
    #[arg(long, env = "AIO_INSECURE_HTTP", value_parser = BoolishValueParser::new())]
    insecure_http: bool,
}

impl WayArgs {
    // An empty variable names nothing.
    fn ca_file(&self) -> Option<PathBuf> {
        self.ca_file.clone().filter(|path| !path.as_os_str().is_empty())
    }

    fn proxy(&self) -> Option<String> {
        self.proxy.clone().filter(|proxy| !proxy.is_empty())
    }
}

/// Who asks the controller, on which way, and which releases are believed.
#[derive(Debug, Clone, Args)]
struct ControllerArgs {
    /// The node token. Other users of this machine may see arguments: prefer --token-file or AIO_NODE_TOKEN
    #[arg(long, value_name = "JWT", conflicts_with = "token_file", value_parser = |text: &str| Ok::<_, String>(SecretString::from(text)))]
    token: Option<SecretString>,

    /// A file that holds the node token; `-` is standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    way: WayArgs,

    /// The minisign public key, or its file, that the release must be signed with, whatever the token says
    #[arg(long, value_name = "KEY", env = "AIO_RELEASE_KEY")]
    release_key: Option<String>,
}

impl ControllerArgs {
    /// The token that was given. From here on the command line does not show it.
    fn token(&self) -> Result<SecretString, Failure> {
        if let Some(token) = &self.token {
            command_line::hide(token.expose_secret());
        }
        let variable = std::env::var(token::VARIABLE).ok();
        token::obtain(self.token.as_ref(), self.token_file.as_deref(), variable, std::io::stdin())
    }

    fn release_key(&self) -> Result<Option<String>, Failure> {
        let named = self.release_key.as_deref().filter(|key| !key.is_empty());
        named.map(release_key::read).transpose()
    }
}

/// Installs the worker on this machine, or brings it to the version that the controller asks for.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct InstallArgs {
    #[command(flatten)]
    controller: ControllerArgs,

    /// The node that the token must be for
    #[arg(long, value_name = "ID", env = "AIO_NODE_ID")]
    node_id: Option<NodeId>,

    /// The controller's WebSocket endpoint, instead of the one in the token
    #[arg(long, value_name = "URL", env = "AIO_CONTROLLER_ENDPOINT")]
    controller_endpoint: Option<String>,

    /// Take the release from this file, which aio-worker bundle has made, and not from a release server
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,

    /// Ask no controller, and start nothing: the worker connects with the next boot. The release's key must be known
    #[arg(long, requires = "bundle", conflicts_with_all = ["timeout", "no_wait"])]
    delay_connect: bool,

    /// Replace a newer version that is installed by the older one that the controller offers
    #[arg(long)]
    allow_downgrade: bool,

    /// Make a machine that is installed as another node this node
    #[arg(long)]
    replace_identity: bool,

    /// Install on a system that nobody has tested; it needs systemd 247 or newer
    #[arg(long)]
    force_os: bool,

    /// How long the worker may take to be online
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    timeout: Duration,

    /// Do not wait until the worker is online: its service is started and ready, and what follows is seen on the controller
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,

    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

const EXIT_STATUS: &str = "\
The token may also come from the environment: AIO_NODE_TOKEN.

Exit status: 0 done; 1 try again later; 2 usage; 65 the release is not what was published; 69 this machine or the release \
server lacks something; 70 the service or the program failed; 73 no room, or read-only; 74 a file could not be read or \
written; 75 another installation is running; 77 not root; 78 token or configuration; 130 interrupted. On any of them but 0 \
the machine is as it was.";

/// Runs an installation and prints what came of it.
pub async fn run_install(args: InstallArgs, output: Output) -> ExitCode {
    let began = Instant::now();
    match attempt(args, began).await {
        Ok(outcome) => {
            print_outcome(&outcome, output);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            print_failure(&failure, output);
            failure.code.exit_status().into()
        }
    }
}

async fn attempt(args: InstallArgs, began: Instant) -> Result<Outcome, Failure> {
    // From here on a signal undoes, and never kills in mid-work.
    let interrupt = interrupted()?;
    let token = NodeToken::parse(&args.controller.token()?, SystemTime::now().into())?;
    check_node(&token, args.node_id.as_ref())?;
    let host = this_machine().await?;
    let request = Request {
        settings: Settings {
            insecure_http: args.controller.way.insecure_http,
            controller_endpoint: args.controller_endpoint.filter(|endpoint| !endpoint.is_empty()),
            proxy: args.controller.way.proxy(),
            ca_file: None,
        },
        ca_file: args.controller.way.ca_file(),
        allow_downgrade: args.allow_downgrade,
        replace_identity: args.replace_identity,
        force_os: args.force_os,
        goal: match (args.delay_connect, args.no_wait) {
            (true, _) => Goal::Enabled,
            (false, true) => Goal::Ready,
            (false, false) => Goal::Online(args.timeout),
        },
        release_key: args.controller.release_key()?,
        bundle: args.bundle,
        dry_run: args.dry_run,
        began,
        ..Request::new(token)
    };
    let console = Console::of_this_process();
    install(&host, &request, Surroundings { console: &console, checkpoint: &Uneventful, interrupt }).await
}

/// Looks at what the worker needs on this machine, and changes nothing.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// A file that holds the node token; `-` is standard input [default: AIO_NODE_TOKEN, else the installed one]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    way: WayArgs,
}

/// Makes all checks but those of the GPUs.
pub async fn examine(args: DoctorArgs) -> Result<Vec<Finding>, Failure> {
    let variable = std::env::var(token::VARIABLE).ok();
    let token = match token::obtain(None, args.token_file.as_deref(), variable, std::io::stdin()) {
        Ok(token) => Some(token),
        Err(failure) if failure.code == ErrorCode::TokenMissing => None,
        Err(failure) => return Err(failure),
    };
    let examination = Examination {
        layout: Layout::default(),
        root: rustix::process::geteuid().is_root(),
        token,
        ca_file: args.way.ca_file(),
        proxy: args.way.proxy(),
        insecure_http: args.way.insecure_http,
    };
    Ok(match Systemd::connect().await {
        Ok(systemd) => doctor::examine(&examination, Ok(&systemd)).await,
        Err(error) => doctor::examine(&examination, Err(error)).await,
    })
}

/// Takes the worker off this machine.
#[derive(Debug, Clone, Copy, Args)]
#[command(after_help = "\
The worker says goodbye to its controller and is stopped; then whatever its installations did is undone, and what they replaced \
is put back. The node stays registered with its controller.\n\n\
Exit status: 0 done, or nothing was to be done; otherwise as of install. A run that was cut off is finished by the next.")]
pub struct UninstallArgs {
    /// Remove the configuration, too
    #[arg(long)]
    purge: bool,

    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs an uninstallation and prints what came of it.
pub async fn run_uninstall(args: UninstallArgs, output: Output) -> ExitCode {
    match attempt_uninstall(args).await {
        Ok(removed) => {
            print_removed(&removed, output);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            print_failure(&failure, output);
            failure.code.exit_status().into()
        }
    }
}

async fn attempt_uninstall(args: UninstallArgs) -> Result<Removed, Failure> {
    // From here on a signal kills no more: half an uninstallation serves nobody, and a whole one takes seconds.
    let _deaf = interrupted()?;
    let removal = Removal { purge: args.purge, dry_run: args.dry_run };
    uninstall(&this_machine().await?, removal, &Uneventful).await
}

async fn this_machine() -> Result<Host, Failure> {
    let platform = check_machine(rustix::process::geteuid().is_root())?;
    Ok(Host {
        layout: Layout::default(),
        systemd: Systemd::connect().await?,
        accounts: Box::new(SystemAccounts::default()),
        service_log: Box::new(Journald),
        platform,
    })
}

fn check_node(token: &NodeToken, wanted: Option<&NodeId>) -> Result<(), Failure> {
    let node = &token.claims().sub;
    match wanted {
        Some(wanted) if wanted != node => {
            let message = format!("the token is for node {node}, and AIO_NODE_ID or --node-id says {wanted}");
            Err(Failure::new(ErrorCode::TokenForeign, message))
        }
        _ => Ok(()),
    }
}

fn check_machine(root: bool) -> Result<Platform, Failure> {
    if !root {
        return Err(Failure::new(ErrorCode::NotRoot, "installing and uninstalling need root"));
    }
    let (os, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    Platform::of_architecture(architecture).filter(|_| os == "linux").ok_or_else(|| {
        let message = format!("this machine runs {os} on {architecture}, for which there is no release");
        Failure::new(ErrorCode::PlatformUnsupported, message)
    })
}

fn interrupted() -> Result<Interrupt<'static>, Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(ErrorCode::Internal, format!("could not listen to signals: {error}"))
        })
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(Box::pin(async move {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
            _ = hangup.recv() => "SIGHUP",
        }
    }))
}

/// `90`, `90s`, `2m`, `1h` or `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("say it as 90s, 2m or 1h".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "say it as 90s, 2m or 1h".to_owned())?;
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| "that is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        install: InstallArgs,
    }

    #[test]
    fn the_arguments_are_sound_and_never_show_the_token() {
        use clap::CommandFactory;
        Command::command().debug_assert();
        let args = Command::parse_from(["x", "--token", "secret.in.argv", "--timeout", "2m"]).install;
        assert_eq!(args.timeout, Duration::from_secs(120));
        assert!(!format!("{args:?}").contains("secret"), "{args:?}");
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        for text in ["", "s", "1d", "-1s", "1.5s", "99999999999999999999h", "9999999999999999999"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn who_is_not_root_is_told_so() {
        assert_eq!(check_machine(false).unwrap_err().code, ErrorCode::NotRoot);
        assert!(check_machine(true).is_ok());
    }
}
