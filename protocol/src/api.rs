//! The shapes of the HTTP API that both ends read: errors. What only the controller reads stands
//! with its handlers.

use serde::{Deserialize, Serialize};

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
