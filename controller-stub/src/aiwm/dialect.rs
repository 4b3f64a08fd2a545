//! What every part of the dialect needs at hand.

use std::sync::Arc;

use aio_protocol::{error_code::ErrorCode, ids::NodeId};
use axum::http::StatusCode;

use super::double::{Double, recording::Entry};
use crate::{api::error::Rejection, app::App, config::Aiwm};

pub(super) struct Dialect {
    pub app: Arc<App>,
    mode: Aiwm,
    /// Where tests may make it fail.
    pub double: Option<Double>,
}

impl Dialect {
    pub(super) fn new(app: Arc<App>, mode: Aiwm, double: bool) -> Self {
        Self { app, mode, double: double.then(Double::default) }
    }

    /// Notes what was said, where somebody may ask for it.
    pub(super) fn record(&self, entry: impl FnOnce() -> Entry) {
        if let Some(double) = &self.double {
            double.recording().push(entry());
        }
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
