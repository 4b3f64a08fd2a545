//! The flow of an installation: undo what was cut off → ask the controller → observe → plan → apply → succeed, or put everything back and say
//! why. What is decided where: `offer` what is installed, `plan` which steps, `step` what each does, `undo` how it goes back, `report` what is
//! told meanwhile, `undelivered` what becomes of a failure that cannot be told.

mod outcome;

use std::{
    cell::Cell,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use aio_host::layout::UNIT;
use aio_protocol::{
    error_code::ErrorCode,
    installation::{InstallationReport, UndeliveredFailure},
};
use reqwest::Client;
use secrecy::ExposeSecret;

use crate::{
    console::Console,
    controller::{
        calls::Controller,
        http,
        online::{self, Snapshot},
        report,
        route::{Route, RouteOptions},
        undelivered,
    },
    doctor,
    failure::Failure,
    machine::{host::Host, lock::Lock, observe::observe, service_log},
    release::{bundle::Bundle, key, offer::Offer},
    request::{Goal, Interrupt, Request, Surroundings, unless},
    transaction::{
        apply,
        checkpoint::Checkpoint,
        config_text::Settings,
        journal::Journal,
        plan::{Target, plan},
        step::Step,
        undo::run::undo,
        work::{Timing, Work},
    },
};

use self::outcome::running;
pub use self::outcome::{Outcome, OutcomeKind, Planned};

/// How long a report that is waited for may take, its tries together.
const REPORT_PATIENCE: Duration = Duration::from_secs(5);

/// Installs, upgrades, or finds that nothing is to be done. On failure the machine is as it was.
pub async fn install(
    host: &Host,
    request: &Request,
    surroundings: Surroundings<'_>,
) -> Result<Outcome, Failure> {
    check_endpoint(request)?;
    let bundle = request.bundle.as_deref().map(|path| Bundle::open(path, host.platform)).transpose()?;
    let options = RouteOptions {
        endpoint: request.settings.controller_endpoint.clone(),
        ca_file: request.ca_file.clone(),
        proxy: request.settings.proxy.clone(),
        insecure_http: request.settings.insecure_http,
        stall_timeout: request.stall_timeout,
    };
    let route = Route::to_controller(request.token.claims(), &options, &host.layout)?;
    let settings = Settings { proxy: route.proxy.to_configure.clone(), ..request.settings.clone() };
    let client = route.client()?;
    let authorities = request.ca_file.as_deref().map(read).transpose()?;
    let controller = match request.goal {
        Goal::Enabled => None,
        Goal::Online(_) | Goal::Ready => {
            Some(Controller::new(&client, &route.base, &request.token, request.token.bearer(&host.layout))?)
        }
    };
    let Surroundings { console, checkpoint, mut interrupt } = surroundings;
    let authorities = authorities.as_deref();
    let run = Run {
        host,
        request,
        settings,
        client: &client,
        controller,
        bundle,
        authorities,
        console,
        checkpoint,
    };
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

/// Refuses an endpoint that the daemon would refuse.
fn check_endpoint(request: &Request) -> Result<(), Failure> {
    let (endpoint, source) = match &request.settings.controller_endpoint {
        Some(endpoint) => (endpoint.as_str(), "the controller endpoint that was given"),
        None => (request.token.claims().ctl.as_str(), "the token's WebSocket endpoint"),
    };
    http::check_endpoint(endpoint, source, request.settings.insecure_http)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::io("read", path, &error))
}

/// One run against one machine.
struct Run<'a> {
    host: &'a Host,
    request: &'a Request,
    /// The request's, with the proxy that was found.
    settings: Settings,
    client: &'a Client,
    /// Where it is asked at all.
    controller: Option<Controller<'a>>,
    bundle: Option<Bundle>,
    authorities: Option<&'a [u8]>,
    console: &'a Console,
    checkpoint: &'a dyn Checkpoint,
}

impl Run<'_> {
    async fn preview(&self, cut_off: bool) -> Result<Outcome, Failure> {
        let offer = self.offer().await?;
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
        let offer = unless(interrupt, self.offer()).await?;
        if let Some(controller) = &self.controller {
            undelivered::deliver(&self.host.layout, &offer.node_id, controller).await;
        }
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
        if steps.is_empty() {
            let kind = self.unchanged(&offer, interrupt).await?;
            return Ok(self.outcome(offer, kind));
        }
        let at = Cell::new(None);
        match self.transact(&offer, &steps, &mut journal, interrupt, &at).await {
            Ok((timings, Some(worker))) => {
                warnings.extend(steps.iter().filter_map(Step::note));
                Ok(self.succeed(offer, warnings, timings, worker).await)
            }
            Ok((timings, None)) if self.request.goal == Goal::Enabled => {
                Ok(self.outcome(offer, OutcomeKind::Prepared { timings }))
            }
            // The controller hears of the success from the worker itself.
            Ok((timings, None)) => Ok(self.outcome(offer, OutcomeKind::Started { timings })),
            Err(failure) => {
                let failure = self.put_back(&mut journal, failure).await;
                Err(self.tell_failure(&offer, at.get(), failure).await)
            }
        }
    }

    /// What is to be installed.
    async fn offer(&self) -> Result<Offer, Failure> {
        match (&self.controller, self.bundle.clone()) {
            (Some(controller), bundle) => {
                match Offer::of_controller(controller, self.host.platform, bundle).await {
                    Err(failure)
                        if failure.code == ErrorCode::ReleaseNotFound && self.host.layout.is_packaged() =>
                    {
                        Offer::of_package(self.request.token.claims().sub.clone())
                    }
                    offered => offered,
                }
            }
            (None, Some(bundle)) => Ok(Offer::of_bundle(self.request.token.claims().sub.clone(), bundle)),
            (None, None) => {
                let message =
                    "without its controller a machine is installed from a bundle, and none was given";
                Err(Failure::new(ErrorCode::Usage, message))
            }
        }
    }

    /// How a machine stands on which nothing is to be done.
    async fn unchanged(&self, offer: &Offer, interrupt: &mut Interrupt<'_>) -> Result<OutcomeKind, Failure> {
        let timings = Vec::new();
        match self.request.goal {
            Goal::Enabled => Ok(OutcomeKind::Prepared { timings }),
            Goal::Ready => Ok(OutcomeKind::Started { timings }),
            Goal::Online(patience) => {
                let settled = online::settled(self.host, &offer.node_id, patience);
                Ok(OutcomeKind::AlreadyInstalled { worker: Box::new(unless(interrupt, settled).await?) })
            }
        }
    }

    /// What an installation needs of any machine, before this one's own state is looked at.
    async fn preflight(&self) -> Result<Vec<String>, Failure> {
        let time = self.controller.as_ref().and_then(Controller::time);
        doctor::preflight(self.host, self.request.force_os, time).await
    }

    async fn decide(&self, offer: &Offer) -> Result<Vec<Step>, Failure> {
        let observed = observe(self.host, &offer.version).await?;
        tracing::debug!(?observed, "observed");
        // The version of a package is its package manager's to change, and to vouch for.
        let (given, of_token) =
            (self.request.release_key.as_deref(), self.request.token.claims().rel.as_deref());
        let release = if observed.packaged {
            None
        } else {
            Some(offer.promise(key::demanded(given, of_token)?.as_ref(), self.settings.insecure_http)?)
        };
        let Request { token, goal, allow_downgrade, replace_identity, .. } = self.request;
        let target = Target {
            token,
            settings: &self.settings,
            authorities: self.authorities,
            release,
            goal: *goal,
            allow_downgrade: *allow_downgrade,
            replace_identity: *replace_identity,
        };
        plan(&observed, &target, &self.host.layout)
    }

    /// From the first report to the commit; on failure or interruption the journal holds what is to be undone.
    async fn transact(
        &self,
        offer: &Offer,
        steps: &[Step],
        journal: &mut Journal,
        interrupt: &mut Interrupt<'_>,
        at: &Cell<Option<&'static str>>,
    ) -> Result<(Vec<Timing>, Option<Snapshot>), Failure> {
        if let Some(controller) = &self.controller {
            unless(interrupt, controller.report(&started(offer), soon())).await?;
        }
        journal.begin(offer.node_id.clone(), offer.version.clone())?;
        let work = report::beside(self.controller.as_ref(), async |reporter| {
            let work = Work::new(self.host, self.client, self.console, &reporter, at, steps.len());
            let timings = apply::apply(steps, &work, journal, self.checkpoint).await?;
            let worker = work.online.take();
            if worker.is_none() && matches!(self.request.goal, Goal::Online(_)) {
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
        offer: Offer,
        mut warnings: Vec<String>,
        timings: Vec<Timing>,
        worker: Snapshot,
    ) -> Outcome {
        let took = self.request.began.elapsed();
        let report = InstallationReport::Succeeded { seconds: Some(took.as_secs_f64()) };
        if let Some(controller) = &self.controller
            && let Err(failure) = controller.report(&report, soon()).await
        {
            warnings.push(format!("the controller could not be told of the success: {}", failure.message));
        }
        let runs = running(&worker, &offer);
        if offer.is_planned() && runs != offer.version {
            let planned = &offer.version;
            // A package has its own, or a release was published under another's name.
            warnings.push(format!("the controller plans {planned}, and what runs says that it is {runs}"));
        }
        let kind = OutcomeKind::Installed { worker: Box::new(worker), timings, warnings };
        Outcome { took, ..self.outcome(offer, kind) }
    }

    /// Reports that nothing could be begun: a beginning and its end.
    async fn tell_refusal(&self, offer: &Offer, failure: Failure) -> Failure {
        let Some(controller) = &self.controller else { return failure };
        match controller.report(&started(offer), soon()).await {
            Ok(()) => self.tell_failure(offer, Some("plan"), failure).await,
            Err(trouble) => failure.with("reportFailed", trouble.message),
        }
    }

    /// Reports a failure at `step`, and says in it when that could not be done, and whether it is kept for later. What failed before any step is
    /// not: the controller knows of no beginning, and nothing was changed.
    async fn tell_failure(&self, offer: &Offer, step: Option<&str>, failure: Failure) -> Failure {
        let error = failure.to_report();
        let (begun, step) = (step.is_some(), step.unwrap_or("begin"));
        let failure = failure.with("step", step);
        let Some(controller) = &self.controller else { return failure };
        let step = Some(step.to_owned());
        let report = InstallationReport::Failed { step: step.clone(), error: error.clone() };
        let Err(trouble) = controller.report(&report, soon()).await else { return failure };
        let failure = failure.with("reportFailed", &*trouble.message);
        if !begun || !trouble.is_transient() {
            return failure;
        }
        let (node_id, at) = (offer.node_id.clone(), SystemTime::now().into());
        match undelivered::keep(self.host, &UndeliveredFailure { node_id, at, step, error }) {
            Ok(path) => failure.with("reportKept", path.display().to_string()),
            Err(trouble) => {
                tracing::warn!(message = %trouble.message, "the report could not be kept for later");
                failure
            }
        }
    }

    fn outcome(&self, offer: Offer, kind: OutcomeKind) -> Outcome {
        let version = match &kind {
            OutcomeKind::AlreadyInstalled { worker } | OutcomeKind::Installed { worker, .. } => {
                running(worker, &offer)
            }
            _ => offer.version.clone(),
        };
        Outcome {
            node_id: offer.node_id,
            node_name: offer.node_name,
            version,
            kind,
            took: self.request.began.elapsed(),
        }
    }
}

fn started(offer: &Offer) -> InstallationReport {
    InstallationReport::Started { version: Some(offer.version.clone()) }
}

fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + REPORT_PATIENCE
}
