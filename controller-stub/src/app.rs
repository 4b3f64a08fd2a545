//! What every request and every connection needs at hand.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use secrecy::SecretString;
use tokio::{runtime::Handle, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::limit::RequestLimit,
    brake::Brakes,
    elsewhere::Elsewhere,
    enrolment::Enroller,
    exporter::Exporter,
    failures::Failures,
    gateway::{admission::Admission, clones::Clones, registry::Registry},
    lifecycle::Lifecycle,
    listener::budget::Budget,
    noti::Noti,
    outbox::Outbox,
    readiness::Probe,
    releases::downloads::Downloads,
    store::{Membership, Store},
    telemetry::Telemetry,
    tls::Certificate,
    tokens::refused::Refused,
    webhooks::Webhooks,
};

pub(crate) struct App {
    pub store: Store,
    /// This controller among those that serve together.
    pub membership: Membership,
    pub lifecycle: Lifecycle,
    pub enroller: Enroller,
    /// Where workers' connections run.
    pub gateway: Handle,
    pub registry: Registry,
    /// What workers measure.
    pub telemetry: Telemetry,
    pub admission: Arc<Admission>,
    pub noti: Noti,
    pub clones: Mutex<Clones>,
    /// Of several controllers: how the nodes of the others are.
    pub elsewhere: Elsewhere,
    /// Hold nodes online when most of an organisation's fall silent at once.
    pub brakes: Mutex<Brakes>,
    pub outbox: Outbox,
    pub webhooks: Webhooks,
    /// Whom people may sign in through.
    #[cfg(feature = "pages")]
    pub oidc: Option<crate::oidc::Oidc>,
    pub request_limit: Option<RequestLimit>,
    /// Node tokens that were refused.
    pub refused: Refused,
    /// For the answers that are on their way.
    pub answers: Arc<Budget>,
    /// Release files that are on their way.
    pub downloads: Arc<Downloads>,
    /// Routes that fail at present.
    pub failures: Failures,
    pub exporter: Exporter,
    /// For scrapes of the fleet, each of which takes some memory.
    pub fleet_scrapes: Arc<Semaphore>,
    /// What is served over TLS.
    pub certificate: Option<Certificate>,
    pub metrics_token: Option<SecretString>,
    /// Whether the database takes changes.
    pub probe: Probe,
    pub trusted_proxies: Vec<IpNet>,
    /// How long a connection may go without registering.
    pub register_timeout: Duration,
    /// How long a socket may outlive its token.
    pub token_grace: Duration,
    /// Interval between looks for alarms.
    pub alarm_interval: Duration,
    /// How long a node may be offline before it is an alarm.
    pub alarm_offline_after: Duration,
    /// Where the database and the secrets are.
    pub data_dir: PathBuf,
    /// How often what was seen last is written down.
    pub last_seen_lag: Duration,
    /// Connections live outside the HTTP server's care; here they are tracked.
    pub connections: TaskTracker,
    /// A stop is near, and nobody should begin here.
    pub leaving: CancellationToken,
    /// Ends everything.
    pub stop: CancellationToken,
}

impl App {
    pub(crate) fn clones(&self) -> MutexGuard<'_, Clones> {
        self.clones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn brakes(&self) -> MutexGuard<'_, Brakes> {
        self.brakes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
