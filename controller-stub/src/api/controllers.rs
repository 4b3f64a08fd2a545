//! `/controllers`: who serves the database together.

use std::sync::Arc;

use aio_protocol::time::Timestamp;
use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{auth::AsOperator, error::Rejection};
use crate::{app::App, store::Controller};

#[derive(Serialize, ToSchema)]
pub(super) struct ControllerList {
    data: Vec<ListedController>,
}

/// A controller that serves the database together with others.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ListedController {
    /// Of this start of it; no other has it.
    number: i64,
    /// What its machine is called.
    name: String,
    /// Where it listens.
    address: String,
    version: String,
    started_at: Timestamp,
    /// When it was heard of last, by the database's clock.
    beaten_at: Timestamp,
    /// Whether it does what is done once: delivery, rollouts, retention.
    leads: bool,
    /// How many workers are connected to it.
    workers: i64,
}

impl From<Controller> for ListedController {
    fn from(controller: Controller) -> Self {
        let Controller { number, name, address, version, started_at, beaten_at, leads, workers } = controller;
        Self { number, name, address, version, started_at, beaten_at, leads, workers }
    }
}

/// List the controllers that serve together
///
/// Empty where one serves alone.
#[utoipa::path(get, path = "/controllers", operation_id = "listControllers", tag = "operation", security(("user" = [])),
    responses((status = 200, description = "The controllers, the oldest first", body = ControllerList)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _: AsOperator,
) -> Result<Json<ControllerList>, Rejection> {
    let data = app.store.controllers().await?.into_iter().map(ListedController::from).collect();
    Ok(Json(ControllerList { data }))
}
