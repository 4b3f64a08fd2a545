//! The node token of AIWM: given by a login with the node's secret, exchanged for a newer one before
//! it ends, and shared by the session and the metrics. All times are of the monotonic clock: what this
//! machine takes for the hour changes nothing. Decides nothing about what comes of a failure.

use std::{sync::Arc, time::Duration};

use aio_host::{proxy::Proxy, tls::Trust};
use aio_installer::{AiwmService, Failure, Granted};
use aio_protocol::{aiwm::credentials::Credentials, error_code::ErrorCode};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::{Mutex, Notify},
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, info, warn};

use crate::{
    session::backoff::{Backoff, Jitter},
    tally::Tally,
};

/// So long before its end, a token is exchanged.
const MARGIN: Duration = Duration::from_secs(300);

/// AIWM takes a token for a newer one for a while after its end: a little less than that.
const GRACE: Duration = Duration::from_secs(240);

/// Who logs in, and how AIWM is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountRoute {
    /// The node's own.
    pub credentials: Credentials,
    /// Whom to trust.
    pub trust: Trust,
    /// The proxy, if there is one.
    pub proxy: Option<Proxy>,
    /// Whether plain `http` may leave this machine.
    pub insecure_http: bool,
}

/// The node token, between those who use it.
#[derive(Debug, Clone, Default)]
pub struct Account(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    entry: Mutex<Option<Entry>>,
    /// Somebody was given a token.
    given: Notify,
}

/// What is known for one route.
#[derive(Debug, Clone)]
struct Entry {
    of: AccountRoute,
    service: AiwmService,
    token: Option<Held>,
}

/// A node token.
#[derive(Debug, Clone)]
struct Held {
    secret: SecretString,
    until: Instant,
    life: Duration,
}

/// A node token, for whoever uses it.
#[derive(Debug, Clone)]
pub struct Pass {
    /// The token.
    pub secret: SecretString,
    /// Whether a login has just given it.
    pub is_fresh: bool,
}

impl Account {
    /// A node token that holds: the one that is there, exchanged if it is near its end, or a new one
    /// by a login.
    pub async fn pass(&self, route: &AccountRoute) -> Result<Pass, Failure> {
        let mut entry = self.0.entry.lock().await;
        let mut known = match entry.take_if(|known| known.of == *route) {
            Some(known) => known,
            None => Entry { of: route.clone(), service: service(route).await?, token: None },
        };
        // Whoever waits for a call may be gone before it ends: what is known stays.
        *entry = Some(known.clone());
        let outcome = known.pass().await;
        if outcome.is_ok() {
            self.0.given.notify_one();
        }
        // What an operator puts right after a failure of TLS are the files that the client was made of.
        let is_outdated = outcome
            .as_ref()
            .is_err_and(|failure| matches!(failure.code, ErrorCode::TlsFailed | ErrorCode::CaMismatch));
        *entry = Some(known).filter(|_| !is_outdated);
        outcome
    }

    /// The token was refused where it was shown: the next one comes from a login.
    pub async fn refused(&self, token: &SecretString) {
        if let Some(known) = &mut *self.0.entry.lock().await {
            known.token =
                known.token.take().filter(|held| held.secret.expose_secret() != token.expose_secret());
        }
    }

    /// When the token is to be exchanged; none where there is no token.
    async fn due(&self) -> Option<(AccountRoute, Instant)> {
        let entry = self.0.entry.lock().await;
        let known = entry.as_ref()?;
        Some((known.of.clone(), known.token.as_ref()?.due()))
    }

    /// Keeps the token fresh, for ever: a session may last for days without showing it, and the next
    /// connection shall not wait for a login.
    pub async fn keep_fresh(self) {
        let (mut backoff, mut tally) = (Backoff::default(), Tally::default());
        loop {
            let Some((route, due)) = self.due().await else {
                self.0.given.notified().await;
                continue;
            };
            if due > Instant::now() {
                // Another token may come meanwhile, and is due later.
                sleep_until(due.min(Instant::now() + MARGIN / 10)).await;
                continue;
            }
            let failure = self.pass(&route).await.err();
            // The token that is there may hold for a while, and its successor be late.
            if self.due().await.is_some_and(|(_, due)| due > Instant::now()) {
                (backoff, tally) = Default::default();
                continue;
            }
            if let Some(count) = tally.count() {
                let reason = failure.map(|failure| failure.message).unwrap_or_default();
                warn!(count, reason, "there is no newer node token yet");
            }
            sleep(Duration::from_secs(1) + backoff.delay(Jitter::new(fastrand::f64()))).await;
            backoff = backoff.failed();
        }
    }
}

impl Held {
    /// From when on it is exchanged: a token with a short life at half of it.
    fn due(&self) -> Instant {
        let margin = MARGIN.min(self.life / 2);
        self.until.checked_sub(margin).unwrap_or(self.until)
    }
}

impl Entry {
    async fn pass(&mut self) -> Result<Pass, Failure> {
        let now = Instant::now();
        if let Some(held) = &self.token
            && now < held.due()
        {
            return Ok(Pass { secret: held.secret.clone(), is_fresh: false });
        }
        if let Some(held) = self.token.clone().filter(|held| now < held.until + GRACE) {
            match self.service.refresh(&held.secret).await {
                Ok(granted) => {
                    debug!("the node token was exchanged for a newer one");
                    return Ok(self.keep(granted, now, false));
                }
                Err(failure) if failure.code == ErrorCode::TokenInvalid => {
                    info!("AIWM does not exchange the node token ({failure}); logging in");
                }
                // The one that is there holds; only its successor is late.
                Err(failure) if now < held.until => {
                    debug!("the node token could not be exchanged yet: {failure}");
                    return Ok(Pass { secret: held.secret, is_fresh: false });
                }
                Err(failure) => debug!("the node token could not be exchanged: {failure}"),
            }
            self.token = None;
        }
        let Credentials { node_id, secret, .. } = &self.of.credentials;
        let granted = self.service.login(node_id, &secret.0).await?;
        Ok(self.keep(granted, now, true))
    }

    fn keep(&mut self, granted: Granted, asked: Instant, is_fresh: bool) -> Pass {
        let Granted { token, life } = granted;
        self.token = Some(Held { secret: token.clone(), until: asked + life, life });
        Pass { secret: token, is_fresh }
    }
}

/// The client, which reads the authorities' files: not on the caller's thread.
async fn service(route: &AccountRoute) -> Result<AiwmService, Failure> {
    let route = route.clone();
    let made = spawn_blocking(move || {
        AiwmService::at(&route.credentials.api, &route.trust, route.proxy.as_ref(), route.insecure_http)
    });
    made.await.unwrap_or_else(|error| Err(Failure::new(ErrorCode::Internal, error.to_string())))
}
