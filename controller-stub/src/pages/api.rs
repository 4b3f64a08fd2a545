//! The API, asked in this process as the user who is signed in. What it refuses, a page shows.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use aio_protocol::{claims::UserClaims, error_code::ErrorCode};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::ConnectInfo,
    http::{HeaderValue, Method, Request, StatusCode, Version, header, request::Parts},
    response::Response,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower_service::Service;

use crate::{
    api::{auth, error::Rejection},
    listener::InFlight,
};

/// No answer that a page asks for is longer.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The API for one user and one request of theirs.
#[derive(Clone)]
pub(super) struct Api {
    router: Router,
    user: UserClaims,
    peer: Option<ConnectInfo<SocketAddr>>,
    in_flight: Option<Arc<InFlight>>,
    forwarded: Vec<HeaderValue>,
}

impl Api {
    pub(super) fn new(router: Router, user: UserClaims, parts: &Parts) -> Self {
        Self {
            router,
            user,
            peer: parts.extensions.get().copied(),
            in_flight: parts.extensions.get().cloned(),
            forwarded: parts.headers.get_all(FORWARDED_FOR).iter().cloned().collect(),
        }
    }

    /// What is at `path`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Rejection> {
        read(self.ask(Method::GET, path, None).await?)
    }

    /// Asks for a change, with a body or without.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Rejection> {
        read(self.ask(method, path, body).await?)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Vec<u8>, Rejection> {
        // No Host goes with it, which HTTP/1.1 would have to have.
        let mut request = Request::builder().method(method).uri(path).version(Version::HTTP_2);
        for value in &self.forwarded {
            request = request.header(FORWARDED_FOR, value);
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        let mut request = request.body(body).map_err(|error| Rejection::fault(&error))?;
        let extensions = request.extensions_mut();
        auth::assume(extensions, self.user.clone());
        if let Some(peer) = self.peer {
            extensions.insert(peer);
        }
        if let Some(in_flight) = &self.in_flight {
            extensions.insert(in_flight.clone());
        }
        let mut router = self.router.clone();
        let answered: Result<Response, Infallible> =
            Service::<Request<Body>>::call(&mut router, request).await;
        let response = match answered {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status();
        let body = to_bytes(response.into_body(), MAX_ANSWER_BYTES).await;
        let body = body.map_err(|error| Rejection::fault(&error))?.to_vec();
        if status.is_success() { Ok(body) } else { Err(refused(status, &body)) }
    }
}

fn read<T: DeserializeOwned>(body: Vec<u8>) -> Result<T, Rejection> {
    serde_json::from_slice(&body).map_err(|error| Rejection::fault(&error))
}

fn refused(status: StatusCode, body: &[u8]) -> Rejection {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let code = ErrorCode::parse(&text("code"));
    Rejection::new(
        status,
        code.unwrap_or_else(|| ErrorCode::of_http_status(status.as_u16())),
        text("message"),
    )
}
