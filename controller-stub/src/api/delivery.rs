//! `/delivery`: whether events are delivered, and going on after NOTI said that it is gone.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    audit::Asked,
    auth::{AsOperator, AsUser},
    error::Rejection,
};
use crate::{app::App, outbox::DeliveryState, store::Store};

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
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    AsOperator(person): AsOperator,
) -> Result<Json<Delivery>, Rejection> {
    let user = person.sub.clone();
    let asked = Asked { action: "delivery.resume", node: None, target: None, detail: None };
    let work = async |store: Store| {
        if app.outbox.switch.resume() {
            store.record_outcome("done").await?;
            tracing::info!(%user, "delivery of events was resumed");
        }
        Ok(Json(Delivery { state: app.outbox.switch.state() }))
    };
    person.audited(&app, asked, work).await
}
