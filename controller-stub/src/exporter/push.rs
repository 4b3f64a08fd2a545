//! Pushes the fleet's figures by OTLP over HTTP, where that is configured: node by node in parts, one part at a
//! time, so that a receiver that is slow or away costs a part's memory and nothing else. A round that has not
//! ended when the next is due is left: figures of before are worth less than those of now.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aio_protocol::{retry_after, sources::innermost};
use metrics::counter;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;
use reqwest::{
    Client, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect,
};
use secrecy::ExposeSecret;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::fleet::otlp::{Batch, Batches};
use crate::{app::App, clock, config, loopback::is_this_machine};

/// A push that takes longer has failed.
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// The first pause before a push is tried again; each is twice as long, with chance.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A receiver that asks for a longer pause is asked again after this one.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// The most of an answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Where figures are pushed to.
struct Pusher {
    client: Client,
    url: Url,
    headers: HeaderMap,
    /// Until when the receiver wants nothing.
    held_until: Option<Instant>,
    failures: u64,
    /// How often it has taken a push with a word on it.
    remarks: u64,
}

/// What came of a push.
enum Came {
    Taken,
    /// Taken but for so many points, or with a remark on all.
    Partial(i64, String),
    /// To be tried again, after the pause that the receiver asks for.
    Later(String, Option<Duration>),
    Refused(String),
}

/// Pushes until `stop`.
pub(crate) async fn run(app: Arc<App>, otlp: config::Otlp, stop: CancellationToken) {
    let mut pusher = match Pusher::new(&otlp) {
        Ok(pusher) => pusher,
        Err(error) => {
            tracing::error!(%error, "figures cannot be pushed: there is no HTTP client for it");
            return stop.cancelled().await;
        }
    };
    let mut tick = interval(otlp.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        if stop.run_until_cancelled(pusher.round(&app, otlp.interval)).await.is_none() {
            return;
        }
    }
}

impl Pusher {
    fn new(otlp: &config::Otlp) -> Result<Self, reqwest::Error> {
        let mut client = Client::builder()
            .timeout(PUSH_TIMEOUT)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("aio-controller-stub/", env!("CARGO_PKG_VERSION")));
        if is_this_machine(&otlp.url) {
            client = client.no_proxy();
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &otlp.headers {
            // They were checked.
            if let (Ok(name), Ok(mut value)) =
                (name.parse::<HeaderName>(), value.expose_secret().parse::<HeaderValue>())
            {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        Ok(Self {
            client: client.build()?,
            url: otlp.url.clone(),
            headers,
            held_until: None,
            failures: 0,
            remarks: 0,
        })
    }

    /// Pushes every node's figures once, for no longer than until the next round.
    async fn round(&mut self, app: &Arc<App>, longest: Duration) {
        if self.held_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        let deadline = Instant::now() + longest;
        let mut batches = match Batches::new(app).await {
            Ok(batches) => batches,
            Err(error) => return self.failed(&error.to_string()),
        };
        loop {
            match batches.next().await {
                Ok(Some(batch)) if batch.nodes == 0 => {}
                Ok(Some(batch)) => {
                    let nodes = batch.nodes;
                    let left = deadline.saturating_duration_since(Instant::now());
                    match timeout(left, self.push(batch)).await {
                        Ok(()) => {}
                        Err(_) => {
                            let left = nodes + batches.left();
                            return self.failed(&format!("no answer in time; {left} nodes are left out"));
                        }
                    }
                }
                Ok(None) => return,
                Err(error) => return self.failed(&error.to_string()),
            }
        }
    }

    /// Pushes a part until it is taken or refused.
    async fn push(&mut self, batch: Batch) {
        let body = bytes::Bytes::from(batch.request.encode_to_vec());
        drop(batch);
        let mut pause = FIRST_PAUSE;
        loop {
            match self.attempt(body.clone()).await {
                Came::Taken => return self.taken(),
                Came::Partial(points, why) => {
                    self.remarked(u64::try_from(points).unwrap_or(0), &why);
                    return self.taken();
                }
                Came::Refused(why) => return self.failed(&why),
                Came::Later(why, asked) => {
                    self.failed(&why);
                    let asked = asked.map(|asked| asked.min(LONGEST_ASKED));
                    self.held_until = asked.map(|asked| Instant::now() + asked);
                    let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
                    sleep(asked.unwrap_or(jittered)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn taken(&mut self) {
        counter!("aio_otlp_pushes_total").increment(1);
        if self.failures > 0 {
            let failures = std::mem::take(&mut self.failures);
            tracing::info!(failures, "figures are pushed again");
        }
    }

    fn remarked(&mut self, points: u64, why: &str) {
        counter!("aio_otlp_points_rejected_total").increment(points);
        self.remarks += 1;
        if !self.remarks.is_power_of_two() {
            return;
        }
        let times = self.remarks;
        if points > 0 {
            tracing::warn!(points, why, times, "the receiver of figures has rejected some");
        } else {
            tracing::warn!(why, times, "the receiver of figures warns of something");
        }
    }

    fn failed(&mut self, why: &str) {
        counter!("aio_otlp_push_failures_total").increment(1);
        self.failures += 1;
        if self.failures.is_power_of_two() {
            tracing::warn!(why, failures = self.failures, "figures could not be pushed");
        }
    }

    async fn attempt(&self, body: bytes::Bytes) -> Came {
        let request = self.client.post(self.url.clone()).headers(self.headers.clone());
        let sent = request.header(CONTENT_TYPE, "application/x-protobuf").body(body).send().await;
        let response = match sent {
            Ok(response) => response,
            Err(error) => return Came::Later(innermost(&error), None),
        };
        let status = response.status();
        if status.is_success() {
            return answer(response).await;
        }
        let why = format!("it answered {}", status.as_u16());
        // These and no others may be tried again (OTLP, failures).
        let again = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        if !again.contains(&status) {
            return Came::Refused(why);
        }
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        Came::Later(why, asked.and_then(|text| retry_after::delay(text, clock::now())))
    }
}

/// What a receiver that has taken a push says of it. What is not understood was taken.
async fn answer(mut response: reqwest::Response) -> Came {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Came::Taken;
        }
        bytes.extend_from_slice(&chunk);
    }
    let answer = ExportMetricsServiceResponse::decode(bytes.as_slice()).unwrap_or_default();
    match answer.partial_success {
        Some(partial) if partial.rejected_data_points > 0 || !partial.error_message.is_empty() => {
            let why = partial.error_message.chars().filter(|c| !c.is_control()).take(200).collect();
            Came::Partial(partial.rejected_data_points, why)
        }
        _ => Came::Taken,
    }
}
