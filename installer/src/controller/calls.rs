//! The controller as an installer sees it: it gives the plan and takes reports. Says precisely why
//! it does not: unreachable, not a controller, a fault of its own, or a refusal with a code. What
//! to do with a plan is `plan`'s business.

use std::{cell::Cell, time::Duration};

use aio_host::tls;
use aio_host::token::NodeToken;
use aio_protocol::{
    api::ApiError,
    error_code::ErrorCode,
    installation::{InstallationPlan, InstallationReport},
    node::NodeStatus,
    release::Platform,
    time::Timestamp,
};
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    controller::http::{self, MAX_RETRY_AFTER, their_time},
    failure::Failure,
};

/// Tries of one call.
const MAX_ATTEMPTS: u32 = 3;
/// For all tries together: somebody sits before the terminal.
const CALL_TIMEOUT: Duration = Duration::from_secs(12);
/// Larger than any release will be; a plan that says more is nonsense.
const MAX_RELEASE_BYTES: u64 = 1 << 30;

/// The controller of one node.
pub(crate) struct Controller<'a> {
    client: &'a Client,
    token: &'a NodeToken,
    bearer: SecretString,
    url: Url,
    /// By its last answer.
    time: Cell<Option<Timestamp>>,
}

/// A call that failed, and whether another try may do better.
struct Trouble {
    failure: Failure,
    again: Option<Option<Duration>>,
}

impl<'a> Controller<'a> {
    /// The controller at `base`, for the token's node, which speaks with `bearer`.
    pub(crate) fn new(
        client: &'a Client,
        base: &Url,
        token: &'a NodeToken,
        bearer: SecretString,
    ) -> Result<Self, Failure> {
        let text =
            format!("{}/nodes/{}/installation", base.as_str().trim_end_matches('/'), token.claims().sub);
        let url = text.parse().map_err(|error| {
            Failure::new(ErrorCode::ControllerInvalid, format!("`{text}` is not a URL: {error}"))
        })?;
        Ok(Self { client, token, bearer, url, time: Cell::new(None) })
    }

    /// What time it is there, as its last answer said.
    pub(crate) fn time(&self) -> Option<Timestamp> {
        self.time.get()
    }

    /// What to install here. The answer is checked: it is for this node, this platform, and of a
    /// sane size.
    pub(crate) async fn plan(&self, platform: Platform) -> Result<InstallationPlan, Failure> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("platform", platform.as_str());
        let deadline = Instant::now() + CALL_TIMEOUT;
        let body = self.persist(deadline, true, || self.client.get(url.clone())).await?;
        let plan: InstallationPlan = serde_json::from_slice(&body)
            .map_err(|error| self.not_a_controller(format!("its plan is none: {error}")))?;
        let node = &self.token.claims().sub;
        if plan.node_id != *node {
            return Err(self.not_a_controller(format!("it gave the plan of node {}", plan.node_id)));
        }
        if plan.size == 0 || plan.size > MAX_RELEASE_BYTES {
            return Err(
                self.not_a_controller(format!("its plan says that the release has {} bytes", plan.size))
            );
        }
        if plan.platform != platform {
            let message = format!(
                "the controller offers a release for {}, and this machine is {platform}",
                plan.platform
            );
            return Err(Failure::new(ErrorCode::PlatformUnsupported, message));
        }
        if plan.status == NodeStatus::Inactive {
            let message = format!("node {} ({node}) was decommissioned", plan.node_name);
            return Err(Failure::new(ErrorCode::NodeInactive, message));
        }
        Ok(plan)
    }

    /// Delivers a report, trying until `deadline`. That the node's status does not fit is noted and
    /// no failure: a node that is online or in maintenance stays so.
    pub(crate) async fn report(&self, report: &InstallationReport, deadline: Instant) -> Result<(), Failure> {
        match self.persist(deadline, false, || self.client.post(self.url.clone()).json(report)).await {
            Err(failure) if failure.code == ErrorCode::TransitionRefused => {
                tracing::debug!(message = %failure.message, "the controller noted the report");
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Tries until `deadline`, which moves on by what the controller asks for where that is
    /// `obliging`.
    async fn persist(
        &self,
        mut deadline: Instant,
        obliging: bool,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Vec<u8>, Failure> {
        let mut failed = 0;
        loop {
            let attempt = timeout_at(deadline, self.call(request())).await;
            let Trouble { failure, again } = match attempt {
                Ok(Ok(body)) => return Ok(body),
                Ok(Err(trouble)) => trouble,
                Err(_) => return Err(self.unreachable("it did not answer in time".to_owned())),
            };
            failed += 1;
            let Some(asked) = again.filter(|_| failed < MAX_ATTEMPTS) else { return Err(failure) };
            let pause = http::pause(failed - 1, asked);
            // What the controller asks for is obeyed; our own tries have to fit into the patience.
            deadline = match asked {
                Some(asked) if asked > MAX_RETRY_AFTER || !obliging => {
                    return Err(http::asked_too_much(failure, asked));
                }
                Some(asked) => {
                    tracing::warn!(message = %failure.message, ?asked, "the controller asks to wait");
                    deadline + asked
                }
                None if Instant::now() + pause >= deadline => return Err(failure),
                None => deadline,
            };
            tracing::debug!(code = %failure.code, message = %failure.message, ?pause, "will try again");
            sleep(pause).await;
        }
    }

    async fn call(&self, request: RequestBuilder) -> Result<Vec<u8>, Trouble> {
        let request = request.bearer_auth(self.bearer.expose_secret());
        let mut response = request.send().await.map_err(|error| self.no_answer(error))?;
        self.time.set(their_time(&response));
        let (status, asked) = (response.status(), http::retry_after(&response));
        let body = http::read(&mut response).await.map_err(|error| match error {
            Some(error) => self.no_answer(error),
            None => {
                Trouble { failure: self.not_a_controller("its answer is endless".to_owned()), again: None }
            }
        })?;
        if status.is_success() {
            return Ok(body);
        }
        Err(self.refusal(status, &body, asked))
    }

    fn no_answer(&self, error: reqwest::Error) -> Trouble {
        if let Some(objection) = tls::explain(&error) {
            let tried = format!("could not connect to the controller at {}", self.place());
            let failure = objection.while_trying(tried).with("url", self.url.as_str());
            return Trouble { failure, again: None };
        }
        if http::is_refused_by_proxy(&error) {
            let message = format!(
                "a proxy does not let the connection to {} through: {}",
                self.place(),
                http::reason(error)
            );
            let failure = Failure::new(ErrorCode::ProxyRefused, message).with("url", self.url.as_str());
            return Trouble { failure, again: None };
        }
        let reachable = !error.is_connect() && !error.is_timeout();
        let reason = http::reason(error);
        let failure = if reachable {
            self.not_a_controller(format!("what it answered is not HTTP ({reason})"))
        } else {
            self.unreachable(reason)
        };
        Trouble { failure, again: Some(None) }
    }

    fn refusal(&self, status: StatusCode, body: &[u8], asked: Option<Duration>) -> Trouble {
        // Only an answer in the controller's own form is a verdict on the token.
        let said = ApiError::read(status.as_u16(), body);
        if status.is_server_error() {
            let words = said.map_or_else(|| status.to_string(), |said| said.message);
            let message =
                format!("the controller at {} failed with {}: {words}", self.place(), status.as_u16());
            let failure = Failure::new(ErrorCode::ControllerError, message).with("status", status.as_u16());
            return Trouble { failure, again: Some(asked) };
        }
        let too_many = status == StatusCode::TOO_MANY_REQUESTS;
        let code = said.as_ref().map(ApiError::error_code);
        let Some(code) = too_many.then_some(ErrorCode::RateLimited).or(code) else {
            let reason = format!("it answered {status}, and not as a controller does");
            return Trouble { failure: self.not_a_controller(reason), again: None };
        };
        let said = said.map_or_else(|| status.to_string(), |said| said.message);
        let mut message = format!("the controller at {} refused: {}", self.place(), said);
        if code == ErrorCode::NotFound {
            let hint = "may lack the path that a proxy serves the controller under (PUBLIC_URL)";
            message = format!("{message}; the token's address {} {hint}", self.base());
        }
        let failure = Failure::new(code, message).with("status", status.as_u16());
        let again = too_many.then_some(asked);
        Trouble { failure, again }
    }

    fn unreachable(&self, reason: String) -> Failure {
        let message = format!("could not reach the controller at {}: {reason}", self.place());
        Failure::new(ErrorCode::ControllerUnreachable, message).with("url", self.url.as_str())
    }

    fn not_a_controller(&self, reason: String) -> Failure {
        let message = format!("what answers at {} is not an AIWM controller: {reason}", self.place());
        Failure::new(ErrorCode::ControllerInvalid, message).with("url", self.url.as_str())
    }

    /// The controller's address, as the token has it.
    fn base(&self) -> &str {
        self.url.as_str().split("/nodes/").next().unwrap_or_default()
    }

    /// The part of the address that is wrong when nothing useful answers there.
    fn place(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}
