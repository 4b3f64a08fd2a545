//! Socket.IO on the controller's listener. The library has the protocol; who may open a session, how much a
//! peer may say, and how a connection ends is decided here. A WebSocket leaves the listener and lives on the
//! gateway's thread, as workers of the own dialect do.

mod carriage;
mod frames;
pub(super) mod link;
mod seats;

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use aio_protocol::error_code::ErrorCode;
use axum::{
    body::{Body, to_bytes},
    extract::{FromRequestParts, Request, State},
    http::{self, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use socketioxide::{SocketIo, extract::SocketRef, service::SocketIoService};
use tokio::time::timeout;
use tower_service::Service;

use super::{dialect::Dialect, tokens::SERVED_AT};
use crate::{
    api::{auth, client, error::Rejection, upgrade::Upgrade},
    rate::Rate,
};
use carriage::{Carriage, MAX_MESSAGE_BYTES, MAX_STRANGER_BYTES};
use link::{Ending, Link};
use seats::Seats;

type Engine = SocketIoService<Elsewhere>;

/// What the library asks for what is not its own, which it is never given.
#[derive(Clone)]
struct Elsewhere;

impl Service<Request> for Elsewhere {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        ready(Ok(StatusCode::NOT_FOUND.into_response()))
    }
}

const PING_INTERVAL: Duration = Duration::from_secs(25);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A session that has joined nothing ends after this time.
const JOIN_TIMEOUT: Duration = Duration::from_secs(45);

/// Packets that wait for a peer that does not read.
const MAX_QUEUED: usize = 64;

/// Most messages are smaller than what is read at once.
const READ_BYTES: usize = 1024;

/// What a peer may say: about ten frames in a second, and more at once.
const FRAMES: Rate = Rate { interval: Duration::from_millis(100), burst: 120 };

/// Who is refused a session may ask again after this time.
const PAUSE: Duration = Duration::from_secs(5);

/// So long a request's body may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(30);

/// Stands between two packets of a body.
const SEPARATOR: u8 = 0x1e;

/// The answer to the first request of a polling session has less.
const MAX_OPEN_BYTES: usize = 4096;

pub(super) struct Sockets {
    dialect: Arc<Dialect>,
    engine: Engine,
    seats: Seats,
    /// Sessions that began by polling, by their `sid`.
    polled: Mutex<HashMap<String, Weak<Link>>>,
}

/// What a request for Engine.IO says of itself.
struct Asked {
    is_websocket: bool,
    sid: Option<String>,
}

impl Sockets {
    /// The sockets, and where namespaces are opened.
    pub(super) fn new(dialect: Arc<Dialect>) -> (Self, SocketIo) {
        let (engine, io) = SocketIo::builder()
            .req_path(SERVED_AT)
            .ping_interval(PING_INTERVAL)
            .ping_timeout(PING_TIMEOUT)
            .connect_timeout(JOIN_TIMEOUT)
            .max_payload(MAX_MESSAGE_BYTES)
            .max_buffer_size(MAX_QUEUED)
            .ws_read_buffer_size(READ_BYTES)
            .ws_max_message_size(usize::try_from(MAX_MESSAGE_BYTES).unwrap_or(usize::MAX))
            .ws_max_frame_size(usize::try_from(MAX_MESSAGE_BYTES).unwrap_or(usize::MAX))
            .build_with_inner_svc(Elsewhere);
        (Self { dialect, engine, seats: Seats::default(), polled: Mutex::default() }, io)
    }

    fn open(&self, parts: &http::request::Parts) -> Result<Arc<Link>, Rejection> {
        let app = &self.dialect.app;
        auth::count_stranger(parts, app)?;
        let address = client::address(parts, &app.trusted_proxies);
        let link = Link::open(address, FRAMES, &self.seats).filter(|_| !app.stop.is_cancelled());
        let link = link.ok_or_else(|| {
            let message = "as many connections have no accepted token as the controller takes";
            Rejection::later(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::RateLimited, message, PAUSE)
        })?;
        Ok(Arc::new(link))
    }

    fn known(&self, sid: &str) -> Option<Arc<Link>> {
        let polled = self.polled.lock().unwrap_or_else(PoisonError::into_inner);
        polled.get(sid)?.upgrade().filter(|link| link.ending().is_none())
    }

    fn remember(&self, sid: String, link: &Arc<Link>) {
        let mut polled = self.polled.lock().unwrap_or_else(PoisonError::into_inner);
        polled.retain(|_, link| link.strong_count() > 0);
        polled.insert(sid, Arc::downgrade(link));
    }

    async fn poll(&self, asked: Asked, request: Request) -> Result<Response, Rejection> {
        let (mut parts, body) = request.into_parts();
        let link = match &asked.sid {
            Some(sid) => match self.known(sid) {
                Some(link) => link,
                None => return Ok(unknown_session()),
            },
            None => self.open(&parts)?,
        };
        // A request may bring many packets, and none brings more than a WebSocket may.
        let most = if link.has_joined() { MAX_MESSAGE_BYTES } else { MAX_STRANGER_BYTES };
        let read = to_bytes(body, usize::try_from(most).unwrap_or(usize::MAX));
        let body = match timeout(BODY_PATIENCE, read).await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) => return Ok(StatusCode::PAYLOAD_TOO_LARGE.into_response()),
            Err(_) => return Ok(StatusCode::REQUEST_TIMEOUT.into_response()),
        };
        let packets = body.iter().filter(|byte| **byte == SEPARATOR).count().saturating_add(1);
        if !link.spend(u32::try_from(packets).unwrap_or(u32::MAX)) {
            return Err(Rejection::too_many(Duration::from_secs(1)));
        }
        let body = Body::from(body);
        (parts.uri, parts.headers) = (kept_uri(&parts.uri), kept_headers(&parts.headers));
        parts.extensions.insert(link.clone());
        let answered = Service::call(&mut self.engine.clone(), Request::from_parts(parts, body)).await;
        let response = match answered {
            Ok(response) => response.map(Body::new),
            Err(never) => match never {},
        };
        if asked.sid.is_some() || !response.status().is_success() {
            return Ok(response);
        }
        // The session's name stands in the first answer alone.
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, MAX_OPEN_BYTES).await.map_err(|error| Rejection::fault(&error))?;
        let opened: Option<serde_json::Value> =
            body.get(1..).and_then(|json| serde_json::from_slice(json).ok());
        if let Some(sid) = opened.as_ref().and_then(|open| open.get("sid")?.as_str()) {
            self.remember(sid.to_owned(), &link);
        }
        Ok(Response::from_parts(parts, Body::from(body)))
    }

    async fn upgrade(&self, asked: Asked, request: Request) -> Result<Response, Rejection> {
        let (mut parts, _) = request.into_parts();
        let app = self.dialect.app.clone();
        let upgrade = Upgrade::from_request_parts(&mut parts, &app).await?;
        let link = match &asked.sid {
            Some(sid) => match self.known(sid) {
                Some(link) => link,
                None => return Ok(unknown_session()),
            },
            None => self.open(&parts)?,
        };
        let mut begun = Request::new(());
        *begun.uri_mut() = kept_uri(&parts.uri);
        *begun.headers_mut() = kept_headers(&parts.headers);
        begun.extensions_mut().insert(link.clone());
        let mut engine = self.engine.clone();
        Ok(upgrade.hand_over(&app.gateway, move |stream, early| {
            let carriage = Carriage::new(stream, &early, link);
            // Answered at once; the session is a task of the library's.
            drop(Service::call(&mut engine, (carriage, begun)));
        }))
    }
}

pub(super) async fn serve(State(sockets): State<Arc<Sockets>>, request: Request) -> Response {
    let asked = match Asked::read(&request) {
        Ok(asked) => asked,
        Err((code, message)) => return refusal(code, message),
    };
    let answered = match asked.is_websocket {
        true => sockets.upgrade(asked, request).await,
        false => sockets.poll(asked, request).await,
    };
    answered.unwrap_or_else(IntoResponse::into_response)
}

impl Asked {
    /// Reads the query, or says why not in Engine.IO's codes and words.
    fn read(request: &Request) -> Result<Self, (u8, &'static str)> {
        let query = request.uri().query().unwrap_or_default();
        let value = |name: &str| {
            query
                .split('&')
                .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
                .map(|(_, it)| it)
        };
        let is_websocket = match value("transport") {
            Some("websocket") => true,
            Some("polling") => false,
            _ => return Err((0, "Transport unknown")),
        };
        if value("EIO") != Some("4") {
            return Err((5, "Unsupported protocol version"));
        }
        let sid = value("sid").map(str::to_owned);
        let is_get = *request.method() == Method::GET;
        if !is_get && (is_websocket || sid.is_none() || *request.method() != Method::POST) {
            return Err((2, "Bad handshake method"));
        }
        Ok(Self { is_websocket, sid })
    }
}

fn unknown_session() -> Response {
    refusal(1, "Session ID unknown")
}

fn refusal(code: u8, message: &str) -> Response {
    (StatusCode::BAD_REQUEST, axum::Json(json!({ "code": code, "message": message }))).into_response()
}

/// The address that a session is kept with for as long as it lasts: a copy, because what was read lies in the
/// buffer that the whole request came in.
fn kept_uri(uri: &Uri) -> Uri {
    uri.to_string().parse().unwrap_or_default()
}

/// The headers that a session is kept with, copied likewise.
fn kept_headers(headers: &HeaderMap) -> HeaderMap {
    let copied = |name: &HeaderName| HeaderValue::from_bytes(headers.get(name)?.as_bytes()).ok();
    let names = [header::AUTHORIZATION, header::CONTENT_TYPE];
    names.into_iter().filter_map(|name| copied(&name).map(|value| (name, value))).collect()
}

/// The link of a socket.
pub(super) fn link(socket: &SocketRef) -> Option<Arc<Link>> {
    socket.req_parts().extensions.get::<Arc<Link>>().cloned()
}

/// Takes the namespace from a peer and closes its connection.
pub(super) fn send_away(socket: &SocketRef) {
    let _ = socket.clone().disconnect();
    if let Some(link) = link(socket) {
        link.end(Ending::HangUp);
    }
}
