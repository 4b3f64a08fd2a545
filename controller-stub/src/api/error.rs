//! How a refusal or a fault is told: which HTTP status and which code of the catalogue.

use std::time::Duration;

use aio_protocol::{api::ApiError, error_code::ErrorCode, transition};
use axum::{
    Json,
    extract::rejection::{JsonRejection, QueryRejection},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    enrolment::EnrolmentError,
    lifecycle::LifecycleError,
    noti::NotKept,
    random::NoRandomness,
    store::{Problem, StoreError},
    tokens::{InvalidToken, Unsigned},
};

/// When to come back to a database that another process holds.
const BUSY_PAUSE: Duration = Duration::from_secs(2);

/// When to come back to a database whose disk is full: somebody has to free it.
const FULL_PAUSE: Duration = Duration::from_secs(30);

/// An error answer.
#[derive(Debug)]
pub(crate) struct Rejection {
    status: StatusCode,
    code: ErrorCode,
    message: String,
    allowed: Vec<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What the log says and the answer does not.
    cause: Option<String>,
}

/// Why a request was refused or failed, for the log.
#[derive(Debug, Clone, Default)]
pub(super) struct Reason {
    /// Something here went wrong, and not with the client.
    pub fault: bool,
    pub text: String,
}

impl Rejection {
    pub(crate) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), allowed: Vec::new(), headers: Vec::new(), cause: None }
    }

    /// A refusal that ends by itself after `pause`.
    pub(crate) fn later(
        status: StatusCode,
        code: ErrorCode,
        message: impl Into<String>,
        pause: Duration,
    ) -> Self {
        // Rounded up: who comes a moment too early would only be refused again.
        let seconds = pause.as_secs().saturating_add(1);
        Self::new(status, code, message).with(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds a header to the answer.
    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// A client sends more than its share.
    pub(crate) fn too_many(pause: Duration) -> Self {
        let message = "more requests came from this client in a second than the controller takes";
        Self::later(StatusCode::TOO_MANY_REQUESTS, ErrorCode::RateLimited, message, pause)
    }

    /// A client does not read its answers.
    pub(crate) fn unread() -> Self {
        let message = "too many answers to this client are still on their way: read those first";
        Self::later(StatusCode::TOO_MANY_REQUESTS, ErrorCode::RateLimited, message, Duration::ZERO)
    }

    /// Whether it is no refusal, but that this controller cannot do it now.
    pub(crate) fn is_fault(&self) -> bool {
        self.status.is_server_error()
    }

    pub(crate) fn code(&self) -> ErrorCode {
        self.code
    }

    #[cfg(feature = "pages")]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    #[cfg(feature = "pages")]
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What is taken instead.
    #[cfg(feature = "pages")]
    pub(crate) fn allowed(&self) -> &[String] {
        &self.allowed
    }

    /// A field that is unknown, missing or out of range. The message begins with its name.
    pub(crate) fn field(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::ValidationFailed, message)
    }

    pub(crate) fn unauthorized(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, message)
    }

    pub(crate) fn forbidden(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    pub(crate) fn no_node(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NodeNotFound, format!("there is no node {id}"))
    }

    /// A release file that cannot be served.
    pub(crate) fn unreadable(error: impl std::error::Error + 'static) -> Self {
        Self::fault(&error)
    }

    pub(crate) fn name_taken(name: &str) -> Self {
        let message = format!("name: another node in service is called `{name}`");
        Self::new(StatusCode::CONFLICT, ErrorCode::NameTaken, message)
    }

    /// A database that takes no change now, or another fault of it.
    fn unstored(error: &StoreError) -> Self {
        let pause = match error.problem() {
            Problem::Busy | Problem::Collided | Problem::Unreachable | Problem::ReadOnly | Problem::Taken => {
                BUSY_PAUSE
            }
            Problem::Full | Problem::Refused => FULL_PAUSE,
            Problem::Damaged | Problem::Denied | Problem::Fault => return Self::fault(error),
        };
        let busy = Self::later(StatusCode::SERVICE_UNAVAILABLE, error.code(), error.code().meaning(), pause);
        busy.because(error)
    }

    /// A fault of this controller's own: the log says what, the answer does not.
    pub(crate) fn fault(error: &(dyn std::error::Error + 'static)) -> Self {
        let message = "the controller failed at this; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::ControllerError, message).because(error)
    }

    /// What the log says of it.
    fn because(self, error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        let cause = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
        Self { cause: Some(cause), ..self }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        metrics::counter!("aio_api_refusals_total", "code" => self.code.as_str()).increment(1);
        let fault = self.cause.is_some();
        let reason = Reason { fault, text: self.cause.unwrap_or_else(|| self.message.clone()) };
        let body = ApiError {
            status_code: self.status.as_u16(),
            error: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            message: self.message,
            code: self.code.as_str().to_owned(),
            allowed: self.allowed,
        };
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.headers_mut().extend(self.headers);
        response.extensions_mut().insert(reason);
        response
    }
}

impl From<StoreError> for Rejection {
    fn from(error: StoreError) -> Self {
        Self::unstored(&error)
    }
}

impl From<NoRandomness> for Rejection {
    fn from(error: NoRandomness) -> Self {
        Self::fault(&error)
    }
}

impl From<LifecycleError> for Rejection {
    fn from(error: LifecycleError) -> Self {
        match &error {
            LifecycleError::NotFound(id) => Self::no_node(id.as_str()),
            LifecycleError::Refused { status, .. } => {
                let mut refusal =
                    Self::new(StatusCode::CONFLICT, ErrorCode::TransitionRefused, error.to_string());
                refusal.allowed = transition::allowed(*status).into_iter().map(str::to_owned).collect();
                refusal
            }
            LifecycleError::TooMany { pause, .. } => {
                Self::later(StatusCode::TOO_MANY_REQUESTS, ErrorCode::RateLimited, error.to_string(), *pause)
            }
            LifecycleError::Store(error) => Self::unstored(error),
            LifecycleError::Revoked(_) | LifecycleError::Superseded(_) | LifecycleError::Contended(_) => {
                Self::fault(&error)
            }
        }
    }
}

impl From<EnrolmentError> for Rejection {
    fn from(error: EnrolmentError) -> Self {
        match &error {
            EnrolmentError::NotPublished { .. } => {
                Self::new(StatusCode::NOT_FOUND, ErrorCode::ReleaseNotFound, error.to_string())
            }
            EnrolmentError::Unsigned(Unsigned::VerifyOnly) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::VerifyOnly, error.to_string())
            }
            EnrolmentError::Store(error) => Self::unstored(error),
            _ => Self::fault(&error),
        }
    }
}

impl From<InvalidToken> for Rejection {
    fn from(error: InvalidToken) -> Self {
        Self::unauthorized(error.code(), error.to_string())
    }
}

impl From<NotKept> for Rejection {
    fn from(error: NotKept) -> Self {
        match error {
            NotKept::Unverified(error) => Self::unauthorized(ErrorCode::SignatureRefused, error.to_string()),
            NotKept::NoEvent(error) => Self::field(format!("the body is no node event: {error}")),
            NotKept::Invalid(error) => Self::field(error.to_string()),
            NotKept::Store(error) => error.into(),
        }
    }
}

impl From<QueryRejection> for Rejection {
    fn from(rejection: QueryRejection) -> Self {
        Self::field(reason(&rejection.body_text()))
    }
}

impl From<JsonRejection> for Rejection {
    fn from(rejection: JsonRejection) -> Self {
        Self::field(reason(&rejection.body_text()))
    }
}

/// What is left of the library's text when its own preface is gone: the field and what is wrong with it.
fn reason(text: &str) -> &str {
    text.strip_prefix("Failed to deserialize the JSON body into the target type: ")
        .or_else(|| text.strip_prefix("Failed to parse the request body as JSON: "))
        .or_else(|| text.strip_prefix("Failed to deserialize query string: "))
        .unwrap_or(text)
}
