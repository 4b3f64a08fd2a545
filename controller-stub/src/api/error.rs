//! How a refusal or a fault is told: which HTTP status and which code of the catalogue.

use std::time::Duration;

use aio_protocol::{api::ApiError, error_code::ErrorCode, transition};
use axum::{
    Json,
    extract::rejection::{JsonRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    enrolment::EnrolmentError,
    lifecycle::LifecycleError,
    noti::NotKept,
    random::NoRandomness,
    store::StoreError,
    tokens::{InvalidToken, Unsigned},
};

/// An error answer.
#[derive(Debug)]
pub(crate) struct Rejection {
    status: StatusCode,
    code: ErrorCode,
    message: String,
    allowed: Vec<String>,
    retry_after: Option<Duration>,
}

impl Rejection {
    pub(crate) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), allowed: Vec::new(), retry_after: None }
    }

    /// A refusal that ends by itself after `pause`.
    pub(crate) fn later(
        status: StatusCode,
        code: ErrorCode,
        message: impl Into<String>,
        pause: Duration,
    ) -> Self {
        Self { retry_after: Some(pause), ..Self::new(status, code, message) }
    }

    pub(crate) fn code(&self) -> ErrorCode {
        self.code
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

    pub(crate) fn name_taken(name: &str) -> Self {
        let message = format!("name: another node in service is called `{name}`");
        Self::new(StatusCode::CONFLICT, ErrorCode::NameTaken, message)
    }

    /// A fault of this controller's own: the log says what, the answer does not.
    fn fault(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::ControllerError,
            "the controller failed at this; its log says why",
        )
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        metrics::counter!("aio_api_refusals_total", "code" => self.code.as_str()).increment(1);
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
        if let Some(pause) = self.retry_after {
            // Rounded up: who comes a moment too early would only be refused again.
            let seconds = pause.as_secs().saturating_add(1);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<StoreError> for Rejection {
    fn from(error: StoreError) -> Self {
        Self::fault(&error)
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
            LifecycleError::Withdrawn(_) | LifecycleError::Contended(_) | LifecycleError::Store(_) => {
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
