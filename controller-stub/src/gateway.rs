//! `/ws/node`: who may connect is decided before the upgrade, in HTTP. What a connection then says is `session`'s (pure), what is
//! done about it `connection`'s, and which of a node's connections counts is `registry`'s.

mod connection;
pub(crate) mod registry;
mod session;

use std::{net::SocketAddr, sync::Arc};

use aio_protocol::{
    error_code::ErrorCode,
    wire::{MAX_FRAME_BYTES, SUBPROTOCOL},
};
use axum::{
    extract::{ConnectInfo, State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection},
    http::StatusCode,
    response::Response,
};

use crate::{
    api::{auth::AsNode, error::Rejection},
    app::App,
};

/// The default of 128 KiB per connection would be most of what a connection costs.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// What waits to be written to a worker that does not read.
const MAX_WRITE_BUFFER_BYTES: usize = 4 * MAX_FRAME_BYTES;

/// `GET /ws/node`.
pub(crate) async fn connect(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    AsNode(node): AsNode,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Rejection> {
    let upgrade = upgrade.map_err(|rejection| {
        let status = rejection.status();
        Rejection::new(status, ErrorCode::ValidationFailed, rejection.body_text())
    })?;
    if !upgrade.requested_protocols().any(|protocol| protocol == SUBPROTOCOL) {
        return Err(Rejection::new(
            StatusCode::BAD_REQUEST,
            ErrorCode::ValidationFailed,
            format!("Sec-WebSocket-Protocol must offer `{SUBPROTOCOL}`"),
        ));
    }
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_WRITE_BUFFER_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_message_size(MAX_FRAME_BYTES);
    let connections = app.connections.clone();
    // axum runs this in a task of its own; tracked, so that a shutdown waits for it.
    Ok(upgrade
        .on_upgrade(move |socket| connections.track_future(connection::run(app, node.id, peer.ip(), socket))))
}
