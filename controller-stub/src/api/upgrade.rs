//! Upgrades to WebSockets: what is none is refused as RFC 6455 says.

use axum::{
    extract::{FromRequestParts, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection},
    http::{HeaderValue, StatusCode, header, request::Parts},
};

use aio_protocol::error_code::ErrorCode;

use super::error::Rejection;

/// A request for a WebSocket of version 13.
pub(crate) struct Upgrade(pub WebSocketUpgrade);

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let versioned = parts.headers.contains_key(header::SEC_WEBSOCKET_VERSION);
        match WebSocketUpgrade::from_request_parts(parts, state).await {
            Ok(upgrade) => Ok(Self(upgrade)),
            Err(WebSocketUpgradeRejection::InvalidWebSocketVersionHeader(_)) if versioned => {
                let message = "Sec-WebSocket-Version must be 13";
                let refusal =
                    Rejection::new(StatusCode::UPGRADE_REQUIRED, ErrorCode::ValidationFailed, message);
                let version = HeaderValue::from_static("13");
                Err(refusal.with(header::SEC_WEBSOCKET_VERSION, version))
            }
            Err(rejection) => Err(Rejection::field(rejection.body_text())),
        }
    }
}
