//! What every part of the dialect needs at hand.

use std::sync::Arc;

use aio_protocol::{error_code::ErrorCode, ids::NodeId};
use axum::http::StatusCode;

use crate::{api::error::Rejection, app::App, config::Aiwm};

pub(super) struct Dialect {
    pub app: Arc<App>,
    mode: Aiwm,
}

impl Dialect {
    pub(super) fn new(app: Arc<App>, mode: Aiwm) -> Self {
        Self { app, mode }
    }

    /// The id of a path.
    pub(super) fn id(&self, text: &str) -> Result<NodeId, Rejection> {
        text.parse().map_err(|error: aio_protocol::ids::InvalidId| match self.mode {
            Aiwm::Lenient => Rejection::field(format!("id: {error}")),
            Aiwm::Strict => Rejection::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                ErrorCode::ValidationFailed,
                "Internal server error",
            ),
        })
    }

    /// A node that is not there, or not for whoever asks.
    pub(super) fn no_node(&self, id: &NodeId) -> Rejection {
        match self.mode {
            Aiwm::Lenient => Rejection::no_node(id.as_str()),
            Aiwm::Strict => Rejection::forbidden(ErrorCode::Forbidden, "this node is not yours to see"),
        }
    }
}
