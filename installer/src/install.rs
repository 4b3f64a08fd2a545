//! The flow of an installation: undo what was cut off → ask the controller → observe → plan → apply
//! → succeed, or put everything back and say why. What is decided where: `offer` what is installed,
//! `plan` which steps, `step` what each does, `undo` how it goes back, `report` what is told
//! meanwhile.

mod outcome;

use std::{fs, path::Path, time::SystemTime};

use aio_host::layout::UNIT;
use aio_protocol::error_code::ErrorCode;
use reqwest::Client;
use secrecy::ExposeSecret;

use crate::{
    console::Console,
    controller::{
        calls::Controller,
        http, online,
        report::{self, Teller},
        route::{Route, RouteOptions},
        undelivered,
    },
    doctor,
    failure::Failure,
    machine::{drop_ins::taken_away, host::Host, lock::Lock, observe::observe, service_log},
    release::{bundle::Bundle, key, offer::Offer, prune::prune, tree::ReleaseTree},
    request::{Goal, Interrupt, Request, Surroundings, unless},
    transaction::{
        apply::{Applied, Stopped, apply},
        checkpoint::Checkpoint,
        config_text::Settings,
        journal::Journal,
        plan::{Plan, Target, plan},
        proof::Proof,
        step::Step,
        undo::run::undo,
        work::Work,
    },
    update,
};

use self::outcome::running;
pub use self::outcome::{Outcome, OutcomeKind, Planned};

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
        // An AIWM plans nothing and takes no reports.
        _ if request.token.aiwm().is_some() => None,
        Goal::Enabled => None,
        Goal::Online(_) | Goal::Ready => Some(Controller::new(
            &client,
            &route.base,
            &request.token,
            crate::token::bearer(&request.token, &host.layout),
        )?),
    };
    let Surroundings { console, checkpoint, mut interrupt } = surroundings;
    let authorities = authorities.as_deref();
    let run = Run {
        host,
        request,
        settings,
        client: &client,
        route: &route,
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
    let lock = Lock::take_when_free(&dir, &|failure| update::explain(&host.layout, failure)).await?;
    let outcome = run.locked(&mut interrupt).await;
    // The folder stays while a journal is in it. Failing to remove it is no failure.
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
    route: &'a Route,
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
        let plan = self.decide(&offer).await?;
        let proof = plan.proof.iter().map(|_| (Proof::NAME, Proof::SUMMARY.to_owned()));
        let steps = plan.steps.iter().map(|step| (step.name(), step.summary())).chain(proof);
        let steps = steps.map(|(step, summary)| Planned { step, summary }).collect();
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
        let Offer { node_id: node, version, .. } = &offer;
        let teller = Teller { controller: self.controller.as_ref(), host: self.host, node, version };
        let decided = async {
            let warnings = self.preflight().await?;
            Ok((warnings, self.decide(&offer).await?))
        };
        let (warnings, plan) = match unless(interrupt, decided).await {
            Ok(decided) => decided,
            Err(failure) if failure.code == ErrorCode::Interrupted => return Err(failure),
            // The machine refuses: nothing was changed, and the controller hears why all the same.
            Err(failure) => return Err(teller.refused(failure).await),
        };
        let kind = if plan.steps.is_empty() {
            self.unchanged(&offer, interrupt).await?
        } else {
            match self.transact(&offer, &teller, &plan, &mut journal, interrupt).await {
                Ok(applied) => self.done(&offer, &teller, &plan, &journal, applied, warnings).await,
                Err(Stopped { step, failure }) => {
                    let failure = self.put_back(&mut journal, failure).await;
                    return Err(teller.failed(step, failure).await);
                }
            }
        };
        Ok(self.outcome(offer, kind))
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
            (None, None) if self.request.token.aiwm().is_some() => self.unplanned().await,
            (None, None) => {
                let message =
                    "without its controller a machine is installed from a bundle, and none was given";
                Err(Failure::new(ErrorCode::Usage, message))
            }
        }
    }

    /// What is installed where the controller plans nothing and there is no bundle: what an operator
    /// names, a package, or the program that runs.
    async fn unplanned(&self) -> Result<Offer, Failure> {
        let Request { token, release_url, program, settings, .. } = self.request;
        let node = token.claims().sub.clone();
        if let Some(url) = release_url {
            let Route { trust, proxy, .. } = &self.route;
            let tree = ReleaseTree::at(url, trust, proxy.proxy.as_ref(), settings.insecure_http)?;
            return Offer::of_folder(node, url, &tree, self.host.platform).await;
        }
        if self.host.layout.is_packaged() {
            return Offer::of_package(node);
        }
        match program {
            Some(program) => Offer::of_program(node, program.clone(), self.host.platform),
            None => {
                let message = "AIWM plans no release: name one by --bundle, or by --release-url with --release-key, \
                               or install with aio-worker itself";
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

    async fn decide(&self, offer: &Offer) -> Result<Plan, Failure> {
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
        let updates = self.settings.auto_update.then(|| key::of_updates(given, of_token)).transpose()?;
        let Request { token, goal, allow_downgrade, replace_identity, .. } = self.request;
        let target = Target {
            token,
            settings: &self.settings,
            authorities: self.authorities,
            release,
            updates,
            goal: *goal,
            allow_downgrade: *allow_downgrade,
            replace_identity: *replace_identity,
        };
        plan(&observed, &target, &self.host.layout)
    }

    /// From the first report to the commit; on failure or interruption the journal holds what is to
    /// be undone.
    async fn transact(
        &self,
        offer: &Offer,
        teller: &Teller<'_>,
        plan: &Plan,
        journal: &mut Journal,
        interrupt: &mut Interrupt<'_>,
    ) -> Result<Applied, Stopped> {
        unless(interrupt, teller.started()).await?;
        journal.begin(offer.node_id.clone(), offer.version.clone())?;
        let applied = report::beside(self.controller.as_ref(), async |reporter| {
            let work =
                Work { host: self.host, client: self.client, console: self.console, reporter: &reporter };
            apply(plan, &work, journal, self.checkpoint, interrupt).await
        });
        let applied = applied.await?;
        journal.commit().map_err(|failure| Stopped { step: plan.names().last(), failure })?;
        Ok(applied)
    }

    /// Undoes what was done. `failure` says so when that failed as well.
    async fn put_back(&self, journal: &mut Journal, failure: Failure) -> Failure {
        self.console.clear();
        let since = SystemTime::now() - self.request.began.elapsed();
        let secret = self.request.token.secret().expose_secret();
        let failure = service_log::quote(&*self.host.service_log, failure, since, secret).await;
        self.console.say("putting the machine back as it was");
        match undo(self.host, journal, self.checkpoint).await {
            Ok(()) => failure,
            Err(trouble) => {
                let message = format!("{}; {}", failure.message, trouble.message);
                Failure { message, ..failure }.with("undoFailed", trouble.message)
            }
        }
    }

    /// What has been committed holds, whatever else goes wrong: that is a warning.
    async fn done(
        &self,
        offer: &Offer,
        teller: &Teller<'_>,
        plan: &Plan,
        journal: &Journal,
        applied: Applied,
        mut warnings: Vec<String>,
    ) -> OutcomeKind {
        let Applied { timings, worker } = applied;
        warnings.extend(plan.steps.iter().filter_map(Step::note));
        warnings.extend(self.host.systemd.settings(UNIT).await.iter().flat_map(taken_away));
        let pruned = plan.releases().map_or(Ok(()), |kept| prune(&self.host.layout, &kept));
        for failure in [journal.sweep().err(), pruned.err()].into_iter().flatten() {
            warnings.push(format!("what is not needed any more could not be removed: {}", failure.message));
        }
        let Some(worker) = worker else {
            // The controller hears of the success from the worker itself.
            return match self.request.goal {
                Goal::Enabled => OutcomeKind::Prepared { timings },
                Goal::Online(_) | Goal::Ready => OutcomeKind::Started { timings },
            };
        };
        if let Err(failure) = teller.succeeded(self.request.began.elapsed()).await {
            warnings.push(format!("the controller could not be told of the success: {}", failure.message));
        }
        let runs = running(&worker, offer);
        if offer.is_planned() && runs != offer.version {
            let planned = &offer.version;
            // A package has its own, or a release was published under another's name.
            warnings.push(format!("the controller plans {planned}, and what runs says that it is {runs}"));
        }
        OutcomeKind::Installed { worker: Box::new(worker), timings, warnings }
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
