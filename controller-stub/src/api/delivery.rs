//! `/delivery`: whether events are delivered, and going on after NOTI said that it is gone.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::{AsOperator, AsUser};
use crate::{app::App, outbox::DeliveryState};

#[derive(Serialize, ToSchema)]
pub(super) struct Delivery {
    state: DeliveryState,
}

/// Tell whether events are delivered
#[utoipa::path(get, path = "/delivery", operation_id = "getDelivery", tag = "delivery", security(("user" = [])),
    responses((status = 200, description = "The state of delivery", body = Delivery)))]
pub(super) async fn show(State(app): State<Arc<App>>, _: AsUser) -> Json<Delivery> {
    Json(Delivery { state: app.outbox.switch.state() })
}

/// Go on delivering after NOTI answered 410
///
/// Does nothing while delivery is not stopped. What NOTI does not take then stops it again.
#[utoipa::path(post, path = "/delivery/resume", operation_id = "resumeDelivery", tag = "delivery", security(("user" = [])),
    responses((status = 200, description = "The state of delivery", body = Delivery)))]
pub(super) async fn resume(State(app): State<Arc<App>>, AsOperator(user): AsOperator) -> Json<Delivery> {
    if app.outbox.switch.resume() {
        tracing::info!(user = %user.sub, "delivery of events was resumed");
    }
    Json(Delivery { state: app.outbox.switch.state() })
}
