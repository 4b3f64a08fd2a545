//! The flow of an installation: undo what was cut off → ask the controller → observe → plan → apply → succeed, or put everything back and say
//! why. What is decided where: `plan` which steps, `step` what each does, `undo` how it goes back, `report` what is told meanwhile.

use std::{
    cell::Cell,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    pin::Pin,
    time::{Duration, Instant, SystemTime},
};

use aio_host::{
    config::ConfigFile,
    layout::{Layout, UNIT, USER},
    systemd::ServiceManager,
    tls::{PinnedAuthority, Trust},
};
use aio_protocol::{
    claims::NodeClaims,
    error_code::ErrorCode,
    ids::NodeId,
    installation::{InstallationPlan, InstallationReport},
    release::{Platform, ReleaseVersion},
    snapshot::WorkerSnapshot,
};
use reqwest::Client;
use secrecy::ExposeSecret;

use crate::{
    accounts::{self, Accounts},
    apply::{self, Checkpoint, Work},
    console::Console,
    controller::Controller,
    doctor,
    failure::Failure,
    http,
    journal::Journal,
    lock::Lock,
    observe::observe,
    online,
    plan::{Target, plan},
    report,
    service_log::{self, ServiceLog},
    step::Step,
    token::NodeToken,
    undo::undo,
    verify::Promise,
};
pub use crate::{apply::Timing, config_text::Settings};

/// How long a report that is waited for may take, its tries together.
const REPORT_PATIENCE: Duration = Duration::from_secs(5);

/// The machine that is installed on.
pub struct Host<S> {
    /// Where things lie.
    pub layout: Layout,
    /// Its service manager.
    pub systemd: S,
    /// Who edits its accounts.
    pub accounts: Box<dyn Accounts>,
    /// Who keeps what its services say.
    pub service_log: Box<dyn ServiceLog>,
    /// What releases must be for.
    pub platform: Platform,
}

impl<S> Host<S> {
    /// Whether the account file at `path`, below the root, lists `name`.
    pub(crate) fn lists(&self, path: &str, name: &str) -> bool {
        fs::read_to_string(self.layout.root().join(path)).is_ok_and(|text| accounts::lists(&text, name))
    }

    /// Whether what is at `path` is the daemon's user's.
    pub(crate) fn is_of_daemon(&self, path: &Path) -> bool {
        let passwd = fs::read_to_string(self.layout.root().join("etc/passwd")).unwrap_or_default();
        let daemon =
            passwd.lines().find_map(|line| line.strip_prefix(USER)?.strip_prefix(':')?.split(':').nth(1));
        let owner = fs::symlink_metadata(path).map(|metadata| metadata.uid().to_string());
        owner.is_ok_and(|owner| daemon == Some(owner.as_str()))
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who the machine will be.
    pub token: NodeToken,
    /// What the daemon's configuration must say.
    pub settings: Settings,
    /// Authorities (PEM) that are to be trusted beside the operating system's; copied for the daemon.
    pub ca_file: Option<PathBuf>,
    /// Whether a newer version may be replaced by an older one.
    pub allow_downgrade: bool,
    /// Whether a machine that is another node may become this one.
    pub replace_identity: bool,
    /// Whether a system that nobody has tested is installed on.
    pub force_os: bool,
    /// How long the worker may take to be online, once started.
    pub patience: Duration,
    /// Whether that is not waited for: the service's own word that it is ready is enough.
    pub no_wait: bool,
    /// After how long without a byte a download is given up, if not after the usual time.
    pub stall_timeout: Option<Duration>,
    /// Plan, and change nothing.
    pub dry_run: bool,
    /// When the command began.
    pub began: Instant,
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

/// A step that would be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its word.
    pub step: &'static str,
    /// What it does, on what.
    pub summary: String,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The node.
    pub node_id: NodeId,
    /// Its name.
    pub node_name: String,
    /// The release.
    pub version: ReleaseVersion,
    /// What happened.
    pub kind: OutcomeKind,
    /// From the command's begin.
    pub took: Duration,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum OutcomeKind {
    /// Nothing: this would be done. `cut_off` says that an earlier installation would be undone first.
    Planned {
        /// In this order.
        steps: Vec<Planned>,
        /// Whether an earlier installation was cut off.
        cut_off: bool,
    },
    /// Nothing was to be done, and the worker is online.
    AlreadyInstalled {
        /// How the worker is.
        worker: Box<WorkerSnapshot>,
    },
    /// The worker's service is ready, and nobody waited for it to be online.
    Started {
        /// Each step, and how long it took; none when nothing was to be done.
        timings: Vec<Timing>,
    },
    /// The worker is online.
    Installed {
        /// How the worker is.
        worker: Box<WorkerSnapshot>,
        /// Each step, and how long it took.
        timings: Vec<Timing>,
        /// What went wrong without harm to the installation.
        warnings: Vec<String>,
    },
}

/// Installs, upgrades, or finds that nothing is to be done. On failure the machine is as it was.
pub async fn install<S: ServiceManager>(
    host: &Host<S>,
    request: &Request,
    surroundings: Surroundings<'_>,
) -> Result<Outcome, Failure> {
    let base = endpoints(request)?;
    let trust = trust_of(request.token.claims(), request.ca_file.clone(), &base, &host.layout);
    let client = http::client(&base, &trust, request.settings.insecure_http, request.stall_timeout)?;
    let authorities = request.ca_file.as_deref().map(read).transpose()?;
    let controller = Controller::new(&client, &base, &request.token, request.token.bearer(&host.layout))?;
    let Surroundings { console, checkpoint, mut interrupt } = surroundings;
    let authorities = authorities.as_deref();
    let run = Run { host, request, client: &client, controller, authorities, console, checkpoint };
    let dir = host.layout.journal_dir();
    if request.dry_run {
        return run.preview(Journal::read(&dir)?.is_cut_off()).await;
    }
    let lock = Lock::take(&dir)?;
    let outcome = run.locked(&mut interrupt).await;
    // The folder stays while a journal is in it; that it cannot go is nobody's trouble.
    if let Err(failure) = lock.release(&dir) {
        tracing::warn!(message = %failure.message, "could not tidy up");
    }
    outcome
}

/// The controller's base URL. The daemon's endpoint is looked at as well: it would refuse what is refused here.
fn endpoints(request: &Request) -> Result<reqwest::Url, Failure> {
    let claims = request.token.claims();
    let insecure = request.settings.insecure_http;
    let (endpoint, source) = match &request.settings.controller_endpoint {
        Some(endpoint) => (endpoint.as_str(), "the controller endpoint that was given"),
        None => (claims.ctl.as_str(), "the token's WebSocket endpoint"),
    };
    http::check_endpoint(endpoint, source, insecure)?;
    http::parse(&claims.api, "the controller's address in the token", insecure)
}

/// Whom this installation trusts: the authority that the token names for the controller, and for all others the operating system's and
/// the operator's own, those of an earlier installation included.
pub(crate) fn trust_of(
    claims: &NodeClaims,
    ca_file: Option<PathBuf>,
    base: &reqwest::Url,
    layout: &Layout,
) -> Trust {
    let hosts = base.host_str().map(str::to_owned).into_iter().collect();
    let pin = claims.ca.clone().map(|fingerprint| PinnedAuthority { fingerprint, hosts });
    // A configuration that cannot be read is refused later on, by name.
    let installed = || ConfigFile::read(&layout.config()).ok().and_then(|file| file.ca_file);
    Trust { pin, ca_file: ca_file.or_else(installed) }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::io("read", path, &error))
}

/// One run against one machine.
struct Run<'a, S> {
    host: &'a Host<S>,
    request: &'a Request,
    client: &'a Client,
    controller: Controller<'a>,
    authorities: Option<&'a [u8]>,
    console: &'a Console,
    checkpoint: &'a dyn Checkpoint,
}

impl<S: ServiceManager> Run<'_, S> {
    async fn preview(&self, cut_off: bool) -> Result<Outcome, Failure> {
        let offer = self.controller.plan(self.host.platform).await?;
        self.preflight().await?;
        let steps = self.decide(&offer).await?;
        let steps = steps.iter().map(|step| Planned { step: step.name(), summary: step.summary() }).collect();
        Ok(self.outcome(offer, OutcomeKind::Planned { steps, cut_off }))
    }

    async fn locked(&self, interrupt: &mut Interrupt<'_>) -> Result<Outcome, Failure> {
        let mut journal = Journal::open(&self.host.layout.journal_dir())?;
        if journal.is_cut_off() {
            self.console.say("an earlier installation was cut off; undoing what it did");
            undo(self.host, &mut journal, self.checkpoint).await?;
        }
        let offer = unless(interrupt, self.controller.plan(self.host.platform)).await?;
        let decided = async {
            let warnings = self.preflight().await?;
            Ok((warnings, self.decide(&offer).await?))
        };
        let (mut warnings, steps) = match unless(interrupt, decided).await {
            Ok(decided) => decided,
            Err(failure) if failure.code == ErrorCode::Interrupted => return Err(failure),
            // The machine refuses: nothing was changed, and the controller hears why all the same.
            Err(failure) => return Err(self.tell_refusal(&offer, failure).await),
        };
        if steps.is_empty() && self.request.no_wait {
            return Ok(self.outcome(offer, OutcomeKind::Started { timings: Vec::new() }));
        }
        if steps.is_empty() {
            let settled = online::settled(self.host, &offer.node_id, self.request.patience);
            let worker = Box::new(unless(interrupt, settled).await?);
            return Ok(self.outcome(offer, OutcomeKind::AlreadyInstalled { worker }));
        }
        let at = Cell::new(None);
        match self.transact(&offer, &steps, &mut journal, interrupt, &at).await {
            Ok((timings, Some(worker))) => {
                warnings.extend(steps.iter().filter_map(Step::note));
                Ok(self.succeed(offer, warnings, timings, worker).await)
            }
            // The controller hears of the success from the worker itself.
            Ok((timings, None)) => Ok(self.outcome(offer, OutcomeKind::Started { timings })),
            Err(failure) => {
                let failure = self.put_back(&mut journal, failure).await;
                Err(self.tell_failure(at.get().unwrap_or("begin"), failure).await)
            }
        }
    }

    /// What an installation needs of any machine, before this one's own state is looked at.
    async fn preflight(&self) -> Result<Vec<String>, Failure> {
        doctor::preflight(self.host, self.request.force_os, self.controller.time()).await
    }

    async fn decide(&self, offer: &InstallationPlan) -> Result<Vec<Step>, Failure> {
        let Request { token, settings, .. } = self.request;
        let url = http::parse(&offer.download_url, "the plan's download URL", settings.insecure_http)?;
        let promise = Promise::of(offer, token.claims().rel.as_deref())?;
        let observed = observe(self.host, &offer.version).await?;
        tracing::debug!(?observed, "observed");
        let Request { patience, no_wait, allow_downgrade, replace_identity, .. } = *self.request;
        let authorities = self.authorities;
        let target = Target {
            token,
            settings,
            authorities,
            promise,
            url,
            patience,
            no_wait,
            allow_downgrade,
            replace_identity,
        };
        plan(&observed, &target, &self.host.layout)
    }

    /// From the first report to the commit; on failure or interruption the journal holds what is to be undone.
    async fn transact(
        &self,
        offer: &InstallationPlan,
        steps: &[Step],
        journal: &mut Journal,
        interrupt: &mut Interrupt<'_>,
        at: &Cell<Option<&'static str>>,
    ) -> Result<(Vec<Timing>, Option<WorkerSnapshot>), Failure> {
        unless(interrupt, self.controller.report(&started(offer), soon())).await?;
        journal.begin(offer.node_id.clone(), offer.version.clone())?;
        let work = report::beside(&self.controller, async |reporter| {
            let work = Work::new(self.host, self.client, self.console, &reporter, at, steps.len());
            let timings = apply::apply(steps, &work, journal, self.checkpoint).await?;
            let worker = work.online.take();
            if worker.is_none() && !self.request.no_wait {
                let message = "the plan did not end with a worker that is online";
                return Err(Failure::new(ErrorCode::Internal, message));
            }
            Ok((timings, worker))
        });
        let applied = unless(interrupt, work).await?;
        journal.commit()?;
        Ok(applied)
    }

    /// Undoes what was done. `failure` says so when that failed as well.
    async fn put_back(&self, journal: &mut Journal, failure: Failure) -> Failure {
        self.console.clear();
        let failure = self.quote_service(failure).await;
        self.console.say("putting the machine back as it was");
        match undo(self.host, journal, self.checkpoint).await {
            Ok(()) => failure,
            Err(trouble) => {
                let message = format!("{}; {}", failure.message, trouble.message);
                Failure { message, ..failure }.with("undoFailed", trouble.message)
            }
        }
    }

    /// `failure` with what the service said, where that is where the reason stands.
    async fn quote_service(&self, failure: Failure) -> Failure {
        if !matches!(failure.code, ErrorCode::ServiceFailed | ErrorCode::OnlineTimeout) {
            return failure;
        }
        let since = SystemTime::now() - self.request.began.elapsed();
        let lines = self.host.service_log.last_lines(UNIT, since).await;
        let lines = service_log::presentable(lines, self.request.token.secret().expose_secret());
        if lines.is_empty() { failure } else { failure.with("journal", lines) }
    }

    async fn succeed(
        &self,
        offer: InstallationPlan,
        mut warnings: Vec<String>,
        timings: Vec<Timing>,
        worker: WorkerSnapshot,
    ) -> Outcome {
        let took = self.request.began.elapsed();
        let report = InstallationReport::Succeeded { seconds: Some(took.as_secs_f64()) };
        let told = self.controller.report(&report, soon()).await;
        let untold = |failure: Failure| {
            format!("the controller could not be told of the success: {}", failure.message)
        };
        warnings.extend(told.err().map(untold));
        let kind = OutcomeKind::Installed { worker: Box::new(worker), timings, warnings };
        Outcome { took, ..self.outcome(offer, kind) }
    }

    /// Reports that nothing could be begun: a beginning and its end.
    async fn tell_refusal(&self, offer: &InstallationPlan, failure: Failure) -> Failure {
        match self.controller.report(&started(offer), soon()).await {
            Ok(()) => self.tell_failure("plan", failure).await,
            Err(trouble) => failure.with("reportFailed", trouble.message),
        }
    }

    /// Reports a failure, and says in it when that could not be done.
    async fn tell_failure(&self, step: &str, failure: Failure) -> Failure {
        let report = InstallationReport::Failed { step: Some(step.to_owned()), error: failure.to_report() };
        let told = self.controller.report(&report, soon()).await;
        let failure = failure.with("step", step);
        match told {
            Ok(()) => failure,
            Err(trouble) => failure.with("reportFailed", trouble.message),
        }
    }

    fn outcome(&self, offer: InstallationPlan, kind: OutcomeKind) -> Outcome {
        Outcome {
            node_id: offer.node_id,
            node_name: offer.node_name,
            version: offer.version,
            kind,
            took: self.request.began.elapsed(),
        }
    }
}

fn started(offer: &InstallationPlan) -> InstallationReport {
    InstallationReport::Started { version: Some(offer.version.clone()) }
}

fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + REPORT_PATIENCE
}

/// `work`, unless somebody interrupts it first.
async fn unless<T>(
    interrupt: &mut Interrupt<'_>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        reason = interrupt => Err(Failure::new(ErrorCode::Interrupted, format!("the installation was interrupted by {reason}"))),
        outcome = work => outcome,
    }
}
