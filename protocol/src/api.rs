//! The shapes of the HTTP API that both ends read: errors. What only the controller reads stands
//! with its handlers.

use serde::{Deserialize, Serialize};

use crate::error_code::ErrorCode;

/// Every error answer of the HTTP API, in AIWM's form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ApiError {
    /// The HTTP status, again.
    pub status_code: u16,
    /// The status in words, e.g. `Bad Request`.
    pub error: String,
    /// What is wrong, with the field or value.
    pub message: String,
    /// A code of the catalogue.
    pub code: String,
    /// With `TRANSITION_REFUSED`: what the node's status allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
}

impl ApiError {
    /// The error in `body`, which came with this HTTP status; none where it is not in the
    /// controller's form, because something between may have answered then.
    pub fn read(status: u16, body: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(body).ok().filter(|error| error.status_code == status)
    }

    /// Its code in the catalogue. A newer controller may have newer codes; then the status decides.
    pub fn error_code(&self) -> ErrorCode {
        ErrorCode::parse(&self.code).unwrap_or(ErrorCode::of_http_status(self.status_code))
    }
}
