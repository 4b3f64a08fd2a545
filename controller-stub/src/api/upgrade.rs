//! The upgrade of a request to a WebSocket (RFC 6455, section 4.2).

use aio_protocol::error_code::ErrorCode;
use axum::{
    body::Body,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use tokio::runtime::Handle;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::error::Rejection;
use crate::{
    listener::{self, Transport},
    websocket::{Limits, Socket},
};

/// A request that may become a WebSocket.
pub(crate) struct Upgrade {
    key: HeaderValue,
    on_upgrade: OnUpgrade,
    protocols: Vec<String>,
}

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let headers = &parts.headers;
        for (name, value) in [(header::CONNECTION, "upgrade"), (header::UPGRADE, "websocket")] {
            if !tokens(headers, &name).any(|token| token.eq_ignore_ascii_case(value)) {
                return Err(Rejection::field(format!("{name} must be `{value}`")));
            }
        }
        match headers.get(header::SEC_WEBSOCKET_VERSION) {
            Some(version) if version == "13" => {}
            Some(_) => {
                let message = "Sec-WebSocket-Version must be 13";
                let refusal =
                    Rejection::new(StatusCode::UPGRADE_REQUIRED, ErrorCode::ValidationFailed, message);
                return Err(refusal.with(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
            }
            None => return Err(Rejection::field("Sec-WebSocket-Version is missing")),
        }
        let missing = || Rejection::field("Sec-WebSocket-Key is missing");
        let key = headers.get(header::SEC_WEBSOCKET_KEY).cloned().ok_or_else(missing)?;
        if STANDARD.decode(key.as_bytes()).map_or(0, |key| key.len()) != 16 {
            return Err(Rejection::field("Sec-WebSocket-Key must be 16 bytes in base64"));
        }
        let protocols = tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL).map(str::to_owned).collect();
        let not_upgradable = || Rejection::field("this connection cannot be upgraded");
        let on_upgrade = parts.extensions.remove::<OnUpgrade>().ok_or_else(not_upgradable)?;
        Ok(Self { key, on_upgrade, protocols })
    }
}

impl Upgrade {
    /// The subprotocols that the peer offers.
    pub(crate) fn protocols(&self) -> impl Iterator<Item = &str> {
        self.protocols.iter().map(String::as_str)
    }

    /// Answers with `protocol`, and calls `serve` on `runtime` with the socket once it is open.
    pub(crate) fn accept(
        self,
        protocol: &'static str,
        limits: &'static Limits,
        runtime: &Handle,
        serve: impl FnOnce(Socket) + Send + 'static,
    ) -> Response {
        let Self { key, on_upgrade, .. } = self;
        runtime.spawn(async move {
            let Ok(upgraded) = on_upgrade.await else { return };
            match Socket::new(upgraded, limits) {
                Ok(socket) => serve(socket),
                Err(error) => tracing::debug!(%error, "an upgraded connection could not be taken over"),
            }
        });
        let headers = [
            (header::CONNECTION, HeaderValue::from_static("upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol)),
        ];
        let accept = [(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))];
        (StatusCode::SWITCHING_PROTOCOLS, headers, accept, Body::empty()).into_response()
    }
}

impl Upgrade {
    /// Answers without a subprotocol, and gives `serve` the connection under the WebSocket, detached from
    /// the listener, with what came of it already.
    pub(crate) fn hand_over(
        self,
        runtime: &Handle,
        serve: impl FnOnce(Box<dyn Transport>, Bytes) + Send + 'static,
    ) -> Response {
        let Self { key, on_upgrade, .. } = self;
        runtime.spawn(async move {
            let Ok(upgraded) = on_upgrade.await else { return };
            match listener::detach(upgraded) {
                Ok((transport, early)) => serve(transport, early),
                Err(error) => tracing::debug!(%error, "an upgraded connection could not be taken over"),
            }
        });
        let headers = [
            (header::CONNECTION, HeaderValue::from_static("upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
        ];
        let accept = [(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))];
        (StatusCode::SWITCHING_PROTOCOLS, headers, accept, Body::empty()).into_response()
    }
}

/// The values of a header that is a list.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}
