//! `install`: arguments, environment, exit status. The flow is `crate::install`'s,
//! how it looks `present`'s.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use aio_host::token::NodeToken;
use aio_protocol::{error_code::ErrorCode, ids::NodeId};
use clap::Args;
use secrecy::SecretString;

use super::{
    answer::Running,
    arguments::{ControllerArgs, duration},
    present::{Output, conclude, print_outcome},
    this_machine::{interrupted, this_machine},
};
use crate::{
    bootstrap::{Way, bootstrap, is_setup_token, setup_node},
    console::Console,
    failure::Failure,
    install::{Outcome, install},
    request::{Goal, Request, Surroundings},
    token,
    transaction::{checkpoint::Uneventful, config_text::Settings},
};

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

    /// Take the release from this file, which aio-worker bundle has made, and not from a release
    /// server
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,

    /// Take the release from this folder of a release server, e.g. https://…/v1.0.0, where the
    /// controller plans none (AIWM); the release's key must be known
    #[arg(long, value_name = "URL", conflicts_with = "bundle")]
    release_url: Option<String>,

    /// Let the controller update this node from now on, to releases that are signed with the release
    /// key
    #[arg(long)]
    auto_update: bool,

    /// Ask no controller, and start nothing: the worker connects with the next boot. The release's
    /// key must be known
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

    /// Do not wait until the worker is online: its service is started and ready, and what follows
    /// is seen on the controller
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
written, or standard output did not take the answer; 75 another installation is running; 77 not root; 78 token or \
configuration; 130 interrupted. On any of them but 0 the machine is as it was, unless only the answer was lost.";

/// Runs an installation and prints what came of it.
/// `program` is the one that runs, where it is a worker that can be installed itself.
pub fn run_install(args: InstallArgs, program: Option<PathBuf>, output: Output) -> Running<ExitCode> {
    let began = Instant::now();
    Box::pin(async move {
        let done = async { print_outcome(&attempt(args, program, began).await?, output) };
        conclude(done.await, output)
    })
}

async fn attempt(args: InstallArgs, program: Option<PathBuf>, began: Instant) -> Result<Outcome, Failure> {
    // From here on a signal undoes, and never kills in mid-work.
    let interrupt = interrupted()?;
    let given = args.controller.token()?;
    let (host, token) = if is_setup_token(&given) {
        let host = this_machine().await?;
        check_setup(&given, args.node_id.as_ref())?;
        let way = Way {
            ca_file: args.controller.route.ca_file(),
            proxy: args.controller.route.proxy(),
            insecure_http: args.controller.route.insecure_http,
            dry_run: args.dry_run,
        };
        let token = bootstrap(&host.layout, &given, &way, &Uneventful).await?;
        (host, token)
    } else {
        let token = token::parse(&given, SystemTime::now().into())?;
        check_node(&token, args.node_id.as_ref())?;
        (this_machine().await?, token)
    };
    let request = Request {
        settings: Settings {
            insecure_http: args.controller.route.insecure_http,
            controller_endpoint: args.controller_endpoint.filter(|endpoint| !endpoint.is_empty()),
            proxy: args.controller.route.proxy(),
            ca_file: None,
            auto_update: args.auto_update,
        },
        ca_file: args.controller.route.ca_file(),
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
        release_url: args.release_url.filter(|url| !url.is_empty()),
        program,
        dry_run: args.dry_run,
        began,
        ..Request::new(token)
    };
    let console = Console::of_this_process();
    install(&host, &request, Surroundings { console: &console, checkpoint: &Uneventful, interrupt }).await
}

/// Before the token is used up.
fn check_setup(token: &SecretString, wanted: Option<&NodeId>) -> Result<(), Failure> {
    let node = setup_node(token)?;
    match wanted {
        Some(wanted) if *wanted != node => Err(foreign(&node, wanted)),
        _ => Ok(()),
    }
}

fn foreign(node: &NodeId, wanted: &NodeId) -> Failure {
    let message = format!("the token is for node {node}, and AIO_NODE_ID or --node-id says {wanted}");
    Failure::new(ErrorCode::TokenForeign, message)
}

fn check_node(token: &NodeToken, wanted: Option<&NodeId>) -> Result<(), Failure> {
    let node = &token.claims().sub;
    match wanted {
        Some(wanted) if wanted != node => Err(foreign(node, wanted)),
        _ => Ok(()),
    }
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
}
