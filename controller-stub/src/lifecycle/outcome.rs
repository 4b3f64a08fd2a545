//! Counts how installations and updates end. It is the status that ends them: a worker that is welcomed, or a
//! failure that is told or found.

use aio_protocol::{error_code::ErrorCode, event::EventBody, node::NodeStatus};
use metrics::{counter, histogram};

use crate::{node::Node, store::RecordedStep};

/// A code that the catalogue does not know: a newer installer's.
const OTHER: &str = "OTHER";

/// Counts the installation or update that ended with these steps of `node`, if one did.
pub(super) fn count(steps: &[RecordedStep], node: &Node) {
    for step in steps {
        match &step.event.body {
            EventBody::InstallationFailed(data) => {
                // Only codes of the catalogue: a label that anybody may invent would have no bound.
                let code = ErrorCode::parse(&data.detail.error.code).map_or(OTHER, ErrorCode::as_str);
                counter!("aio_installations_total", "outcome" => "failed", "code" => code).increment(1);
            }
            EventBody::UpdateFailed(data) => {
                let code = ErrorCode::parse(&data.detail.error.code).map_or(OTHER, ErrorCode::as_str);
                counter!("aio_update_failures_total", "code" => code).increment(1);
            }
            // A worker that connects without an installation records both steps at once.
            EventBody::Connected(_) if steps.len() == 1 && step.from == Some(NodeStatus::Installing) => {
                counter!("aio_installations_total", "outcome" => "succeeded", "code" => "").increment(1);
                if let Some(started) = node.installation.as_ref().and_then(|it| it.started_at) {
                    histogram!("aio_installation_seconds").record(step.event.timestamp.since(started));
                }
            }
            _ => {}
        }
    }
}
