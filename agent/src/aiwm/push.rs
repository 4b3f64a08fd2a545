//! Metrics for MONA, every minute, by a task of its own: what it does or fails at delays no heartbeat.
//! Begins when a session was online for the first time, and then goes on without one: a node whose
//! socket is cut is seen by its numbers. A push that fails is tried again until the next one is due,
//! whose numbers are newer; none is kept for later.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aio_installer::{AiwmService, Failure};
use aio_protocol::{
    aiwm::{
        mona::Push,
        translation::{self, Rates},
    },
    error_code::ErrorCode,
    snapshot::{SessionState, WorkerSnapshot},
    telemetry::{DiskTraffic, NetworkTraffic},
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tracing::{info, warn};

use super::account::{Account, AccountRoute};
use crate::{
    config::WorkerConfig,
    session::backoff::{Backoff, Jitter},
    tally::Tally,
    telemetry::{
        Readings,
        messages::{Identity, system_info},
    },
};

/// From one push to the next.
const INTERVAL: Duration = Duration::from_secs(60);

/// Tries of one push. With their pauses they end before the next is due.
const MAX_TRIES: u32 = 3;

/// What a push is made of, and how it gets there.
pub(crate) struct Pusher {
    /// Who speaks.
    pub(crate) identity: Identity,
    /// What the machine is and does.
    pub(crate) readings: watch::Receiver<Readings>,
    /// How the session stands.
    pub(crate) latest: watch::Receiver<WorkerSnapshot>,
    /// The configuration.
    pub(crate) configs: watch::Receiver<Arc<WorkerConfig>>,
    /// The node token.
    pub(crate) account: Account,
}

impl Pusher {
    /// Pushes for ever; for nothing, where the controller is no AIWM or has no MONA.
    pub(crate) async fn run(mut self) {
        if self.latest.wait_for(|snapshot| snapshot.session.sessions > 0).await.is_err() {
            return;
        }
        let mut due = interval(INTERVAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut traffic, mut failures) = (None, Tally::default());
        let mut mona: Option<(AccountRoute, AiwmService)> = None;
        loop {
            due.tick().await;
            let Some(route) = self.route().await else { continue };
            let Some(push) = self.push(&mut traffic) else { continue };
            let service = match mona.take().filter(|(of, _)| *of == route) {
                Some((_, service)) => Ok(service),
                None => service(route.clone()).await,
            };
            let outcome = match &service {
                Ok(service) => self.deliver(service, &route, &push).await,
                Err(failure) => Err(failure.clone()),
            };
            mona = service.ok().map(|service| (route, service));
            match outcome {
                Ok(()) => {
                    let count = failures.clear();
                    if count > 0 {
                        info!(count, "metrics reach MONA again");
                    }
                }
                Err(failure) => {
                    mona = mona.filter(|_| failure.code != ErrorCode::TlsFailed);
                    if let Some(count) = failures.count() {
                        warn!(count, code = failure.code.as_str(), "metrics do not reach MONA: {failure}");
                    }
                }
            }
        }
    }

    /// The way to MONA; none where there is none. Reads files.
    async fn route(&self) -> Option<AccountRoute> {
        let config = self.configs.borrow().clone();
        let read = spawn_blocking(move || config.installed_credentials());
        let route = read.await.ok()?.ok()?.aiwm?;
        route.credentials.mona.is_some().then_some(*route)
    }

    /// The numbers of now; none before the machine was measured.
    fn push(&self, last: &mut Option<(Instant, Counters)>) -> Option<Push> {
        let readings = self.readings.borrow().clone();
        let metrics = self.identity.metrics(&readings)?;
        let hardware = system_info(readings.facts.as_ref()?, &readings).hardware;
        let now = Instant::now();
        let counted = Counters { network: metrics.network, disks: metrics.disk_traffic.unwrap_or_default() };
        let rates = last.map(|(at, before)| rates(before, counted, now - at)).unwrap_or_default();
        *last = Some((now, counted));
        let is_online = self.latest.borrow().session.state == SessionState::Online;
        Some(translation::push(&metrics, &hardware, is_online, rates, SystemTime::now().into()))
    }

    async fn deliver(&self, mona: &AiwmService, route: &AccountRoute, push: &Push) -> Result<(), Failure> {
        let (mut tries, mut backoff) = (0, Backoff::default());
        loop {
            let failure = match self.once(mona, route, push).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            tries += 1;
            let passes = failure.code.is_transient() || failure.code == ErrorCode::TokenInvalid;
            if !passes || tries >= MAX_TRIES {
                return Err(failure);
            }
            sleep(backoff.delay(Jitter::new(fastrand::f64()))).await;
            backoff = backoff.failed();
        }
    }

    async fn once(&self, mona: &AiwmService, route: &AccountRoute, push: &Push) -> Result<(), Failure> {
        let pass = self.account.pass(route).await?;
        let outcome = mona.push(&pass.secret, push).await;
        if outcome.as_ref().is_err_and(|failure| failure.code == ErrorCode::TokenInvalid) && !pass.is_fresh {
            self.account.refused(&pass.secret).await;
        }
        outcome
    }
}

/// The client for MONA, which reads the authorities' files.
async fn service(route: AccountRoute) -> Result<AiwmService, Failure> {
    let made = spawn_blocking(move || {
        let base = route.credentials.mona.unwrap_or_default();
        AiwmService::at(&base, &route.trust, route.proxy.as_ref(), route.insecure_http)
    });
    made.await.unwrap_or_else(|error| Err(Failure::new(ErrorCode::Internal, error.to_string())))
}

/// What the kernel counts from the boot on.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    network: NetworkTraffic,
    disks: DiskTraffic,
}

/// The average since the last push. Counters that went back began anew: then nothing is known.
fn rates(before: Counters, now: Counters, passed: Duration) -> Rates {
    let each = |counter: fn(&Counters) -> u64| {
        let bytes = u128::from(counter(&now).saturating_sub(counter(&before))) * 1000;
        u64::try_from(bytes / passed.as_millis().max(1)).unwrap_or(u64::MAX)
    };
    Rates {
        received: each(|it| it.network.received_bytes),
        sent: each(|it| it.network.sent_bytes),
        read: each(|it| it.disks.read_bytes),
        written: each(|it| it.disks.written_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_average_since_the_last_push_and_never_negative() {
        let counted = |received_bytes, sent_bytes| Counters {
            network: NetworkTraffic { received_bytes, sent_bytes },
            disks: DiskTraffic { read_bytes: sent_bytes, written_bytes: received_bytes },
        };
        let minute = Duration::from_secs(60);
        let told = rates(counted(0, 600), counted(6000, 600), minute);
        assert_eq!(told, Rates { received: 100, sent: 0, read: 0, written: 100 });
        assert_eq!(rates(counted(9, 9), counted(0, 0), minute), Rates::default());
        let most = rates(counted(0, 0), counted(u64::MAX, 1), Duration::ZERO);
        assert_eq!((most.received, most.sent), (u64::MAX, 1000));
    }
}
