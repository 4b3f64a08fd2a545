//! Starts and stops the server: opens what it needs in order, runs its tasks, and ends them in order within a
//! bounded time.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aio_protocol::{error_code::ErrorCode, release::build};
use rustix::fs::Access;
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    aiwm, alarms,
    api::{self, limit::RequestLimit},
    app::App,
    brake::Brakes,
    census, commands,
    config::Config,
    deployment::{Deployment, loopback_url},
    descriptors,
    elsewhere::Elsewhere,
    enrolment::Enroller,
    exporter::{Exporter, push},
    failures::Failures,
    gateway::{admission::Admission, drain, registry::Registry, thread::Thread},
    group,
    leases::Leases,
    lifecycle::Lifecycle,
    listener::{self, Limits, budget::Budget},
    loopback::is_this_machine,
    memory,
    noti::{
        Noti,
        origins::Origins,
        seats::Seats,
        signature::{InvalidSecret, WebhookKeys},
    },
    outbox::{self, Delivery, Destination, Outbox, Relay, Unbuildable, watch_backlog},
    readiness::Probe,
    releases::{Releases, downloads::Downloads, expiry},
    retention::{self, Retention},
    revocations, rollouts,
    secrets::{Secrets, SecretsError},
    store::{Place, Serving, Store, StoreError},
    tasks::{Pulses, TaskEnded, Tasks},
    telemetry::{Telemetry, keeper},
    tls::{Authority, Tls, TlsError},
    tokens::{Tokens, refused::Refused},
    watch,
    webhooks::{self, Webhooks, guard::Guard},
};

/// Whatever has not ended so long after a stop is left behind; nothing that is durable depends on it.
const GRACE: Duration = Duration::from_secs(5);

/// The setting that says which secrets the controller has that serves.
const SECRETS: &str = "secrets_fingerprint";

/// Maximum number of events that are posted to NOTI at once.
const PARALLEL_POSTS: usize = 64;

/// Scrapes of the fleet that go on at once; others wait.
const FLEET_SCRAPES: usize = 2;

/// A server that runs.
pub struct Server {
    address: SocketAddr,
    url: String,
    app: Arc<App>,
    hurry: CancellationToken,
    lame_duck: Duration,
    tasks: Tasks,
    pulses: Pulses,
    store: Store,
    _gateway: Thread,
    // Held until the very end: two servers must not share a data folder or a database.
    _locks: (File, Serving),
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StartError(#[from] Cause);

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("cannot use the data folder {path}")]
    DataDir { path: PathBuf, source: io::Error },
    #[error("another controller runs on the data folder {0}")]
    Locked(PathBuf),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("plain HTTP would be served on {0}, which other machines reach")]
    Exposed(SocketAddr),
    #[error("the double's faults would be served on {0}, which other machines reach")]
    DoubleExposed(SocketAddr),
    #[error("AIWM's tokens are signed with JWT_SECRET (HS256), and this controller signs with another key")]
    AiwmKey,
    #[error(
        "the controller that serves the database has other secrets: tokens of one would be refused by the other"
    )]
    OtherSecrets,
    #[error("{name} is plain HTTP, and its host {host} is not this machine")]
    InTheClear { name: &'static str, host: String },
    #[error("the thread for workers' connections cannot be started")]
    Gateway(#[source] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error("the webhook secret in the data folder cannot be used")]
    WebhookKey(#[from] InvalidSecret),
    #[error("cannot open the database")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Client(#[from] Unbuildable),
    #[cfg(feature = "pages")]
    #[error(transparent)]
    Oidc(#[from] crate::oidc::Unusable),
    #[error(transparent)]
    Command(#[from] commands::CommandError),
}

impl StartError {
    /// The catalogue's code.
    pub fn code(&self) -> ErrorCode {
        match &self.0 {
            Cause::DataDir { .. } => ErrorCode::FileFailed,
            Cause::Locked(_) | Cause::Listen { .. } | Cause::WebhookKey(_) => ErrorCode::ConfigInvalid,
            Cause::Exposed(_) => ErrorCode::InsecureListen,
            Cause::DoubleExposed(_) => ErrorCode::DoubleExposed,
            Cause::AiwmKey | Cause::OtherSecrets => ErrorCode::ConfigInvalid,
            Cause::InTheClear { .. } => ErrorCode::InsecureUrl,
            Cause::Gateway(_) => ErrorCode::Internal,
            Cause::Tls(error) => error.code(),
            Cause::Secrets(error) => error.code(),
            Cause::Store(error) => error.code(),
            Cause::Client(error) => error.code(),
            #[cfg(feature = "pages")]
            Cause::Oidc(error) => error.code(),
            Cause::Command(error) => error.code(),
        }
    }
}

impl Server {
    /// Starts a server; when this returns, it takes requests.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Ok(Self::launch(config).await?)
    }

    /// Says whether `start` would find its configuration, secrets and certificates usable. Listens
    /// nowhere and makes nothing.
    pub async fn check(config: &Config) -> Result<(), StartError> {
        Ok(preflight(config).await?)
    }

    async fn launch(config: Config) -> Result<Self, Cause> {
        refuse_exposure(&config)?;
        // Before anything is counted.
        let exporter = Exporter::install();
        make_data_dir(&config.data_dir)
            .map_err(|source| Cause::DataDir { path: config.data_dir.clone(), source })?;
        let lock = lock(&config.data_dir)?;
        let secrets = Secrets::load(&config)?;
        let tls = Tls::open(&config)?;
        let webhook_keys = WebhookKeys::new(&secrets.noti_webhook)?;
        let pulses = Pulses::default();
        let place = Place::of(&config)?;
        let fingerprint = secrets.fingerprint();
        if config.standby && Store::peek(&place, SECRETS).await?.is_some_and(|theirs| theirs != fingerprint) {
            return Err(Cause::OtherSecrets);
        }
        let serving = if config.shared { place.join().await? } else { place.serve(config.standby).await? };
        let store = Store::open_as_server(&place, &serving, &pulses).await?;
        let membership = serving.membership();
        // Beside others, whose secrets are those of the fleet.
        if membership.is_shared()
            && store.controllers().await?.len() > 1
            && store.setting(SECRETS).await?.is_some_and(|theirs| theirs != fingerprint)
        {
            store.close().await;
            serving.leave().await?;
            return Err(Cause::OtherSecrets);
        }
        let refused = |source| Cause::Listen { address: config.listen, source };
        let listener = listener::bind(config.listen).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let deployment = Deployment::new(&config, address, tls.as_ref().and_then(Tls::published));
        commands::remember(&store, &deployment).await?;
        store.put_setting(SECRETS, &fingerprint).await?;
        commands::default_owner(&store).await?;
        warn_of_exposure(&config, address);

        if membership.is_shared() {
            let version = build::number().to_owned();
            let (name, address) = (machine_name(), address.to_string());
            store.introduce(membership.number(), name, address, version).await?;
        }

        let destination = Destination::of(&config);
        let limit = descriptors::raise_limit();
        let room = usize::try_from(descriptors::connections(limit)).unwrap_or(usize::MAX);
        let gateway = Thread::start().map_err(Cause::Gateway)?;
        let outbox = Outbox::new(config.noti_breaker_pause, membership.is_shared());
        let (workers, installations) =
            (Leases::new(config.heartbeat_timeout), Leases::new(config.installation_timeout));
        let public = deployment.api.clone();
        let tokens = Tokens::new(secrets.tokens);
        if config.aiwm.is_some() && !tokens.signs_with_secret() {
            return Err(Cause::AiwmKey);
        }
        #[cfg(feature = "pages")]
        let oidc = match config.oidc {
            Some(oidc) => {
                Some(crate::oidc::Oidc::new(oidc, &tokens, format!("{public}{}", crate::pages::CALLBACK))?)
            }
            None => None,
        };
        let app = Arc::new(App {
            #[cfg(feature = "pages")]
            oidc,
            lifecycle: Lifecycle::new(
                store.clone(),
                outbox.notifier.clone(),
                config.noti_event_types.clone(),
                (workers, installations),
                membership.clone(),
            ),
            membership: membership.clone(),
            enroller: Enroller {
                store: store.clone(),
                tokens,
                releases: Releases::new(deployment.releases.clone(), deployment.checksums.clone()),
                deployment,
            },
            gateway: gateway.handle(),
            registry: Registry::default(),
            telemetry: Telemetry::new(config.telemetry_retention),
            clones: Mutex::default(),
            elsewhere: Elsewhere::default(),
            brakes: Mutex::new(Brakes::new(config.heartbeat_timeout)),
            request_limit: config.api_requests_per_second.map(RequestLimit::new),
            refused: Refused::default(),
            answers: Budget::new(config.answer_bytes, config.answer_bytes / 8, config.answer_bytes / 16),
            downloads: Downloads::new(room / 4, (room / 16).max(4)),
            failures: Failures::default(),
            trusted_proxies: config.trusted_proxies.clone(),
            admission: Arc::new(Admission::new(config.max_handshakes, config.upgrades_per_second)),
            token_grace: config.token_grace,
            last_seen_lag: config.last_seen_lag,
            alarm_interval: config.alarm_interval,
            alarm_offline_after: config.alarm_offline_after,
            data_dir: config.data_dir.clone(),
            outbox: outbox.clone(),
            webhooks: Webhooks::new(Guard::new(config.webhook_networks), config.noti_breaker_pause),
            noti: Noti::new(
                store.clone(),
                secrets.noti_service_token.clone(),
                webhook_keys.clone(),
                Origins::new(&public, address, tls.is_some(), config.dashboard_origins),
                config.dashboard_patience,
                Seats::new(room),
            ),
            exporter: exporter.clone(),
            fleet_scrapes: Arc::new(Semaphore::new(FLEET_SCRAPES)),
            certificate: tls.as_ref().map(Tls::watched),
            metrics_token: config.metrics_token,
            probe: Probe::default(),
            register_timeout: config.register_timeout,
            connections: TaskTracker::new(),
            leaving: CancellationToken::new(),
            stop: CancellationToken::new(),
            store: store.clone(),
        });
        // Before the first worker can be heard. Those of other controllers stay theirs.
        if !membership.is_shared() {
            store.clear_connections().await?;
        }
        app.lifecycle.adopt().await?;
        warn_of_descriptors(limit, &app);

        let built_in = loopback_url(address, tls.is_some());
        let own_tls = tls.as_ref().filter(|_| config.noti_service_url.is_none());
        let delivery = Delivery::new(
            &destination,
            &built_in,
            own_tls.map(Tls::own_client).transpose()?,
            secrets.noti_service_token,
            webhook_keys,
        )?;
        let noti = delivery.url().to_owned();
        let stop = app.stop.clone();
        let mut tasks = Tasks::new(pulses.clone(), stop.clone());
        let acceptor = tls.as_ref().map(Tls::server_config).transpose()?;
        let limits = Limits::new(room, config.trusted_proxies);
        let api = api::router(app.clone());
        let router = match config.aiwm {
            None => api.clone(),
            Some(mode) => aiwm::before(app.clone(), api.clone(), mode, config.aiwm_double),
        };
        #[cfg(feature = "pages")]
        let router = crate::pages::before(app.clone(), api, router);
        let served = listener::serve(listener, acceptor, router, limits, stop.clone());
        tasks.spawn("listener", served);
        let (on_thread, stopped) = (gateway.ended(), stop.clone());
        tasks.spawn("gateway", async move {
            let _ = stopped.run_until_cancelled(on_thread).await;
        });
        if let Some(tls) = tls {
            tasks.spawn("certificates", tls.keep_fresh(stop.clone()));
        }
        tasks.spawn_with_pulse("watch", |pulse| watch::run(app.clone(), pulse, stop.clone()));
        tasks.spawn_with_pulse("revocations", |pulse| revocations::run(app.clone(), pulse, stop.clone()));
        tasks.spawn_with_pulse("group", |pulse| group::run(app.clone(), pulse, stop.clone()));
        tasks.spawn("fence", group::fence(app.clone(), stop.clone()));
        tasks.spawn("memory", memory::run(app.clone(), stop.clone()));
        // What is done once is done by the controller that leads.
        tasks.spawn_with_pulse("census", |pulse| {
            led(&app, census::run(store.clone(), exporter, pulse, stop.clone()))
        });
        tasks
            .spawn_with_pulse("rollouts", |pulse| led(&app, rollouts::run(app.clone(), pulse, stop.clone())));
        tasks.spawn_with_pulse("alarms", |pulse| alarms::keeper::run(app.clone(), pulse, stop.clone()));
        tasks.spawn_with_pulse("webhooks", |pulse| {
            led(&app, webhooks::keeper::run(app.clone(), pulse, stop.clone()))
        });
        tasks.spawn_with_pulse("telemetry", |pulse| keeper::run(app.clone(), pulse, stop.clone()));
        let kept = Retention {
            events: config.event_retention,
            history: config.history_retention,
            dead_letters: config.dead_letter_retention,
            inactive_nodes: config.inactive_node_retention,
            telemetry: config.telemetry_retention,
        };
        tasks.spawn_with_pulse("retention", |pulse| {
            led(&app, retention::run(store.clone(), kept, pulse, stop.clone()))
        });
        if let Some(otlp) = config.otlp {
            tasks.spawn("otlp", push::run(app.clone(), otlp, stop.clone()));
        }
        let backlog = watch_backlog(store.clone(), outbox.clone());
        let receiver = outbox::Noti { store: store.clone(), delivery };
        let relay = Relay::new(receiver, outbox, PARALLEL_POSTS);
        tasks.spawn("relay", led(&app, relay.run(stop.clone(), backlog)));
        let (writer, stopped) = (store.clone(), stop.clone());
        tasks.spawn("writer", async move {
            tokio::select! {
                () = writer.writer_ended() => {}
                () = stopped.cancelled() => {}
            }
        });
        let (taken, stopped) = (serving.taken(), stop.clone());
        tasks.spawn("database", async move {
            let _ = stopped.run_until_cancelled(taken.cancelled()).await;
        });
        app.connections.spawn(survey_releases(app.clone()));
        let (watched, stopped) = (app.clone(), stop.clone());
        app.connections.spawn(async move { expiry::watch(&watched.enroller.releases, stopped).await });
        tracing::info!(%address, api = app.enroller.deployment.api, noti, "the controller runs");
        Ok(Self {
            address,
            url: built_in,
            app,
            hurry: CancellationToken::new(),
            lame_duck: config.shutdown_lame_duck,
            tasks,
            pulses,
            store,
            _gateway: gateway,
            _locks: (lock, serving),
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[cfg(test)]
    pub(crate) fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// The address by which this machine reaches it, e.g. `http://127.0.0.1:3305`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Cancelling this makes a shutdown hurry: nothing goes on, and workers are sent away all at once.
    pub fn haste(&self) -> CancellationToken {
        self.hurry.clone()
    }

    /// Waits until a task ends that should not: without it this server does not do its work.
    pub async fn failed(&mut self) -> TaskEnded {
        self.tasks.failed().await
    }

    /// Tells the service manager that the server gets on, as often as it asks for, and says nothing
    /// more once a task is stuck.
    pub fn keep_watchdog(&self) {
        let Some(interval) = sd_notify::watchdog_enabled() else { return };
        let (pulses, stop) = (self.pulses.clone(), self.app.stop.clone());
        self.app.connections.spawn(async move {
            let mut tick = tokio::time::interval(interval / 3);
            while stop.run_until_cancelled(tick.tick()).await.is_some() {
                match pulses.stuck(Instant::now()) {
                    None => drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog])),
                    Some(task) => {
                        tracing::error!(task, "a task does not get on; the service manager is told no more")
                    }
                }
            }
        });
    }

    /// Goes on for the lame-duck time, sends every worker away, ends every task, and closes the database.
    pub async fn shutdown(mut self) {
        self.app.leaving.cancel();
        let _ = timeout(self.lame_duck, self.hurry.cancelled()).await;
        self.app.stop.cancel();
        drain::run(&self.app.registry, &self.hurry).await;
        let connections = &self.app.connections;
        connections.close();
        let ended = timeout(GRACE, async {
            connections.wait().await;
            self.tasks.join().await;
        });
        if ended.await.is_err() {
            tracing::warn!("some tasks did not end in time and are left behind");
            self.tasks.abort();
        }
        let _ = timeout(GRACE, self.store.close()).await;
        if let Ok(Err(error)) = timeout(GRACE, self._locks.1.leave()).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the other controllers could not be told that this one stops");
        }
        tracing::info!("the controller has stopped");
    }
}

/// Does `task` once this controller leads.
fn led<F: Future<Output = ()> + Send>(app: &App, task: F) -> impl Future<Output = ()> + Send + use<F> {
    let (membership, stop) = (app.membership.clone(), app.stop.clone());
    async move {
        if stop.run_until_cancelled(membership.led()).await.is_some() {
            task.await;
        }
    }
}

/// What the machine is called, for other controllers to tell it by.
fn machine_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

fn refuse_exposure(config: &Config) -> Result<(), Cause> {
    if let Some((name, url)) = config.in_the_clear() {
        let host = url.host_str().unwrap_or_default().to_owned();
        return Err(Cause::InTheClear { name, host });
    }
    // A proxy on this machine would hand on what other machines ask.
    let proxied = config.public_url.as_ref().is_some_and(|url| !is_this_machine(url));
    if config.aiwm_double && (proxied || !config.listen.ip().is_loopback()) {
        return Err(Cause::DoubleExposed(config.listen));
    }
    if config.serves_tls() || config.insecure_http || config.listen.ip().is_loopback() {
        return Ok(());
    }
    Err(Cause::Exposed(config.listen))
}

async fn preflight(config: &Config) -> Result<(), Cause> {
    refuse_exposure(config)?;
    match config.data_dir.metadata() {
        Ok(_) => rustix::fs::access(&config.data_dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| Cause::DataDir { path: config.data_dir.clone(), source: error.into() })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Cause::DataDir { path: config.data_dir.clone(), source }),
    }
    let secrets = Secrets::check(config)?;
    WebhookKeys::new(&secrets.noti_webhook)?;
    #[cfg(feature = "pages")]
    if let Some(oidc) = &config.oidc {
        crate::oidc::check(oidc, &Tokens::new(secrets.tokens))?;
    }
    Destination::of(config).check()?;
    // An authority that is not there yet would be made by the first start.
    if config.tls_files.is_some() || Authority::exists(&config.data_dir) {
        Tls::open(config)?;
    }
    Store::check(&Place::of(config)?).await.map_err(Cause::Store)
}

/// A folder that only its owner can enter; one that is there stays as it is.
fn make_data_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn lock(data_dir: &Path) -> Result<File, Cause> {
    let path = data_dir.join("lock");
    let failed = |source| Cause::DataDir { path: path.clone(), source };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    // Whoever may open it may lock it.
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Cause::Locked(data_dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn warn_of_descriptors(limit: Option<u64>, app: &App) {
    let fleet = app.lifecycle.workers.len() as u64;
    let missing = descriptors::missing(limit, fleet);
    if missing == 0 {
        tracing::debug!(limit, "the limit of open files");
    } else {
        tracing::warn!(
            limit,
            fleet,
            missing,
            "the hard limit of open files is too low for the nodes that are online: raise LimitNOFILE"
        );
    }
}

fn warn_of_exposure(config: &Config, address: SocketAddr) {
    if config.public_url.is_none() && address.ip().is_unspecified() {
        tracing::warn!(%address, "PUBLIC_URL is not set, so the tokens that are made here work on this machine only");
    }
    if !config.serves_tls() && !address.ip().is_loopback() {
        tracing::warn!(%address, "plain http is served to other machines (insecure_http): tokens cross the network in the clear");
    }
}

async fn survey_releases(app: Arc<App>) {
    match app.enroller.releases.survey().await {
        Ok(files) => tracing::info!(files, "the releases folder was read"),
        Err(error) => tracing::warn!(%error, "the releases folder cannot be read"),
    }
}
