//! `/delivery`: whether events are delivered, and trying now what waits.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    audit::Asked,
    auth::{AsOperator, AsUser},
    body::{NoFields, OptionalBody},
    error::Rejection,
};
use crate::{
    app::App,
    clock,
    outbox::{DeliveryState, RESUME_SETTING, STATE_SETTING},
    store::Store,
};

#[derive(Serialize, ToSchema)]
pub(super) struct Delivery {
    state: DeliveryState,
}

/// Tell whether events are delivered
#[utoipa::path(get, path = "/delivery", operation_id = "getDelivery", tag = "delivery", security(("user" = [])),
    responses((status = 200, description = "The state of delivery", body = Delivery)))]
pub(super) async fn show(State(app): State<Arc<App>>, _: AsUser) -> Result<Json<Delivery>, Rejection> {
    Ok(Json(Delivery { state: state(&app).await? }))
}

/// How delivery stands here, or at the controller that delivers.
async fn state(app: &App) -> Result<DeliveryState, Rejection> {
    if app.membership.leads() {
        return Ok(app.outbox.delivery());
    }
    let told = app.store.setting(STATE_SETTING).await?;
    Ok(told.and_then(|told| DeliveryState::parse(&told)).unwrap_or(DeliveryState::Running))
}

/// Deliver now
///
/// Ends a stop (NOTI answered 410) and a pause, and tries every event that waits, whatever it waits
/// for. What NOTI does not take waits again.
#[utoipa::path(post, path = "/delivery/resume", operation_id = "resumeDelivery", tag = "delivery", security(("user" = [])),
    request_body = Option<NoFields>, responses((status = 200, description = "The state of delivery", body = Delivery)))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    AsOperator(person): AsOperator,
    _: OptionalBody<NoFields>,
) -> Result<Json<Delivery>, Rejection> {
    let user = person.sub.clone();
    let asked = Asked { action: "delivery.resume", node: None, target: None, detail: None };
    let work = async |store: Store| {
        if app.membership.leads() {
            let resumed = app.outbox.resume();
            store.record_outcome("done").await?;
            tracing::info!(%user, resumed, "every event that waits is delivered now");
        } else {
            // The controller that delivers finds it at its next look.
            store.put_setting(RESUME_SETTING, &clock::now().to_string()).await?;
            tracing::info!(%user, "every event that waits is delivered now, by the controller that leads");
        }
        Ok(Json(Delivery { state: state(&app).await? }))
    };
    person.audited(&app, asked, work).await
}
