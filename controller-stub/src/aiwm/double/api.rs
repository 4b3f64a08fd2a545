//! `/_double/faults` and `/_double/recording`. They ask for no token: whoever reaches the loopback address is
//! the test.

use std::sync::Arc;

use aio_protocol::{error_code::ErrorCode, ids::NodeId};
use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::get,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    super::{dialect::Dialect, fields::Fields, sockets::link::Ending},
    Double,
    faults::{Fault, Order},
    recording::Entry,
};
use crate::{api::error::Rejection, clock};

/// What only tests ask for.
pub(in crate::aiwm) fn routes() -> Router<Arc<Dialect>> {
    Router::new()
        .route("/_double/faults", get(list).post(order).delete(clear))
        .route("/_double/recording", get(recording).delete(forget))
}

fn double(dialect: &Dialect) -> Result<&Double, Rejection> {
    let missing = || Rejection::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, "this is no double");
    dialect.double.as_ref().ok_or_else(missing)
}

async fn list(State(dialect): State<Arc<Dialect>>) -> Result<Json<Value>, Rejection> {
    Ok(Json(json!({ "data": double(&dialect)?.faults().orders() })))
}

async fn order(
    State(dialect): State<Arc<Dialect>>,
    Fields(order): Fields<Order>,
) -> Result<(StatusCode, Json<Value>), Rejection> {
    let double = double(&dialect)?;
    let ended = match &order.fault {
        Fault::Cut => Some(double.end(order.node_id.as_ref(), Ending::Cut)),
        Fault::SendAway => Some(double.end(order.node_id.as_ref(), Ending::HangUp)),
        Fault::Expire => {
            let node = order.node_id.ok_or_else(|| Rejection::field("nodeId: is missing"))?;
            double.faults().expire(node, clock::now());
            None
        }
        _ if !double.faults().put(order.clone()) => {
            return Err(Rejection::field("times: must be 1 or more, and no more than 256 orders may wait"));
        }
        _ => None,
    };
    Ok((StatusCode::CREATED, Json(json!({ "ended": ended, "data": double.faults().orders() }))))
}

async fn clear(State(dialect): State<Arc<Dialect>>) -> Result<StatusCode, Rejection> {
    double(&dialect)?.faults().clear();
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Which {
    node_id: Option<NodeId>,
}

#[derive(Serialize)]
struct Recorded {
    data: Vec<Entry>,
    dropped: u64,
}

async fn recording(
    State(dialect): State<Arc<Dialect>>,
    Query(which): Query<Which>,
) -> Result<Json<Recorded>, Rejection> {
    let (data, dropped) = double(&dialect)?.recording().of(which.node_id.as_ref());
    Ok(Json(Recorded { data, dropped }))
}

async fn forget(State(dialect): State<Arc<Dialect>>) -> Result<StatusCode, Rejection> {
    double(&dialect)?.recording().clear();
    Ok(StatusCode::NO_CONTENT)
}
