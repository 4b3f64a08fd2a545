//! What is asked of an installation, and what it lives with meanwhile.

use std::{
    path::PathBuf,
    pin::Pin,
    time::{Duration, Instant},
};

use aio_host::token::NodeToken;
use aio_protocol::error_code::ErrorCode;

use crate::{
    console::Console,
    failure::Failure,
    transaction::{checkpoint::Checkpoint, config_text::Settings},
};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who the machine will be.
    pub token: NodeToken,
    /// What the daemon's configuration must say.
    pub settings: Settings,
    /// Authorities (PEM) that are to be trusted beside the operating system's; copied for the
    /// daemon.
    pub ca_file: Option<PathBuf>,
    /// Whether a newer version may be replaced by an older one.
    pub allow_downgrade: bool,
    /// Whether a machine that is another node may become this one.
    pub replace_identity: bool,
    /// Whether a system that nobody has tested is installed on.
    pub force_os: bool,
    /// What the installation has come to when it is done.
    pub goal: Goal,
    /// The key (base64, or a `.pub` file's text) that the release must be signed with, whatever the
    /// token says.
    pub release_key: Option<String>,
    /// Where the release is taken from, instead of a release server.
    pub bundle: Option<PathBuf>,
    /// The folder of a release, by URL, where the controller plans none.
    pub release_url: Option<String>,
    /// The running program, where it is a worker that can be installed: for a controller that plans
    /// no release.
    pub program: Option<PathBuf>,
    /// After how long without a byte a download is given up, if not after the usual time.
    pub stall_timeout: Option<Duration>,
    /// Plan, and change nothing.
    pub dry_run: bool,
    /// When the command began.
    pub began: Instant,
}

impl Request {
    /// The usual: from a release server, waiting a minute for the worker to be online, and
    /// overruling nothing. The command begins now.
    pub fn new(token: NodeToken) -> Self {
        Self {
            token,
            settings: Settings::default(),
            ca_file: None,
            allow_downgrade: false,
            replace_identity: false,
            force_os: false,
            goal: Goal::Online(Duration::from_secs(60)),
            release_key: None,
            bundle: None,
            release_url: None,
            program: None,
            stall_timeout: None,
            dry_run: false,
            began: Instant::now(),
        }
    }
}

/// When an installation is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// When the controller has acknowledged the worker's heartbeat, within this time after its
    /// start.
    Online(Duration),
    /// When the service says that it is ready.
    Ready,
    /// When the service will start with the next boot. Its controller is not asked, so a bundle is
    /// needed.
    Enabled,
}

/// What an installation lives with.
pub struct Surroundings<'a> {
    /// Where progress is shown.
    pub console: &'a Console,
    /// Hears of every moment at which power may be lost.
    pub checkpoint: &'a dyn Checkpoint,
    /// Ends with the reason when somebody wants the installation to stop.
    pub interrupt: Interrupt<'a>,
}

/// Ends with the name of what interrupts.
pub type Interrupt<'a> = Pin<Box<dyn Future<Output = &'static str> + 'a>>;

/// `work`, unless somebody interrupts it first.
pub(crate) async fn unless<T>(
    interrupt: &mut Interrupt<'_>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        reason = interrupt => Err(Failure::new(ErrorCode::Interrupted, format!("the command was interrupted by {reason}"))),
        outcome = work => outcome,
    }
}
