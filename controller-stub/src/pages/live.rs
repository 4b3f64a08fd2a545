//! The WebSocket that keeps a page live. It carries no content: it says that something has changed, and the
//! page asks for itself again. Committed changes and health are what pages show, so those two are listened
//! to. A session that ends closes it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aio_protocol::{error_code::ErrorCode, wire::close};
use axum::{
    extract::{FromRequestParts, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tokio::{runtime::Handle, time::sleep_until};

use super::{
    Pages,
    session::{self, Visitor},
};
use crate::{
    api::{error::Rejection, upgrade::Upgrade},
    rate::Rate,
    store::Session,
    websocket::{End, Limits, Message, Socket},
};

/// Of this WebSocket.
const SUBPROTOCOL: &str = "aio.pages.v1";

/// A page says nothing; its browser answers pings.
const LIMITS: Limits =
    Limits { max_message_bytes: 1024, frames: Rate { interval: Duration::from_millis(100), burst: 50 } };

/// Shortest time between two signs, so that a storm of changes costs each page few requests.
const SPACING: Duration = Duration::from_millis(300);

/// How often a session is looked for that another process may have ended.
const LOOK: Duration = Duration::from_secs(2);

/// Keeps proxies from closing a quiet connection, and finds half-open ones.
const PING: Duration = Duration::from_secs(20);

const CHANGED: &str = r#"{"type":"changed"}"#;

pub(super) async fn connect(State(pages): State<Arc<Pages>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    if let Err(rejection) = session::from_own_page(&parts.headers, &pages.app) {
        return rejection.into_response();
    }
    let visitor = match Visitor::from_request_parts(&mut parts, &pages).await {
        Ok(visitor) => visitor,
        Err(answer) => return answer,
    };
    let upgrade = match Upgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) if upgrade.protocols().any(|it| it == SUBPROTOCOL) => upgrade,
        Ok(_) => return Rejection::field("Sec-WebSocket-Protocol must offer `aio.pages.v1`").into_response(),
        Err(rejection) => return rejection.into_response(),
    };
    let Some(seat) = pages.app.noti.seats.watch(&visitor.session.org) else {
        let message = "as many pages and dashboards watch as the controller takes";
        let code = ErrorCode::RateLimited;
        return Rejection::later(StatusCode::SERVICE_UNAVAILABLE, code, message, LOOK).into_response();
    };
    let session = visitor.session;
    let tracker = pages.app.connections.clone();
    upgrade.accept(SUBPROTOCOL, &LIMITS, &Handle::current(), move |mut socket| {
        tracker.spawn(async move {
            let stop = pages.app.stop.clone();
            let end = stop.run_until_cancelled(watch(&pages, &session, &mut socket)).await;
            let end = end.unwrap_or_else(|| End::close(close::RESTART, "the controller restarts"));
            socket.finish(end).await;
            drop(seat);
        });
    })
}

async fn watch(pages: &Pages, session: &Session, socket: &mut Socket) -> End {
    let app = &pages.app;
    let (mut commits, mut healths) = (app.store.commits(), app.registry.health_changes());
    let (mut changed, mut answered) = (false, true);
    let now = Instant::now();
    let (mut next_sign, mut next_look, mut next_ping) = (now, now + LOOK, now + PING);
    loop {
        let due = if changed { next_sign.min(next_look) } else { next_look };
        tokio::select! {
            biased;
            message = socket.receive() => match message {
                Ok(Message::Pong(_)) => answered = true,
                Ok(Message::Text(_) | Message::Binary) => {
                    return End::close(close::MALFORMED, "a page says nothing");
                }
                Err(end) => return end,
            },
            Ok(()) = commits.changed() => changed = true,
            Ok(()) = healths.changed() => changed = true,
            () = sleep_until(due.into()) => {}
        }
        let now = Instant::now();
        if now >= next_look {
            next_look = now + LOOK;
            if !session::goes_on(app, session).await {
                return End::close(close::TOKEN_ENDED, "the session has ended");
            }
        }
        if now >= next_ping {
            if !answered {
                return End::close(close::SILENT, "no ping was answered");
            }
            (next_ping, answered) = (now + PING, false);
            if socket.ping(b"").await.is_err() {
                return End::Gone;
            }
        }
        if changed && now >= next_sign {
            (changed, next_sign) = (false, now + SPACING);
            if socket.send_text(CHANGED).await.is_err() {
                return End::Gone;
            }
        }
    }
}
