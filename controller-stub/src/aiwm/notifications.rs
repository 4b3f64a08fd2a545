//! The namespace `/notifications`: dashboards, which hear of their organisation's events as they are kept. A
//! token that was not made here opens nothing.

use std::{future::ready, sync::Arc};

use aio_protocol::{claims::UserClaims, ids::OwnerId, time::Timestamp};
use serde::Deserialize;
use serde_json::Value;
use socketioxide::{
    SocketIo,
    extract::{SocketRef, TryData},
    handler::ConnectHandler,
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    dialect::Dialect,
    sockets::{self, link::Ending},
    users::may_look,
};
use crate::{
    app::App,
    clock,
    noti::seats::Seat,
    store::{EventQuery, Received, Since},
    tokens::{Bearer, InvalidToken},
};

const NAMESPACE: &str = "/notifications";

/// Events that are read at once.
const BATCH: u64 = 32;

#[derive(Default, Deserialize)]
struct Auth {
    #[serde(default)]
    token: Value,
}

/// A dashboard that may watch.
struct Watcher {
    user: UserClaims,
    _seat: Seat<OwnerId>,
}

/// Opens the namespace.
pub(super) fn open(io: &SocketIo, dialect: &Arc<Dialect>) {
    let (admitting, serving) = (dialect.clone(), dialect.clone());
    let admit = move |socket: SocketRef, TryData(auth): TryData<Auth>| {
        ready(admit(&admitting.app, &socket, auth.unwrap_or_default()))
    };
    let serve = move |socket: SocketRef| {
        serve(&serving.app, socket);
        ready(())
    };
    io.ns(NAMESPACE, serve.with(admit));
}

fn admit(app: &App, socket: &SocketRef, Auth { token }: Auth) -> Result<(), &'static str> {
    let link = sockets::link(socket).ok_or("INTERNAL_ERROR")?;
    let token = token.as_str().filter(|token| !token.is_empty()).ok_or("TOKEN_MISSING")?;
    let user = match app.enroller.tokens.verify(token) {
        Ok(Bearer::User(user)) if may_look(&user.roles) => user,
        Ok(_) | Err(InvalidToken::Invalid(_)) => return Err("TOKEN_INVALID"),
        Err(InvalidToken::Expired) => return Err("TOKEN_EXPIRED"),
    };
    let seat = app.noti.seats.watch(&user.org_id).ok_or("RATE_LIMITED")?;
    link.join(NAMESPACE, Box::new(Watcher { user, _seat: seat }));
    Ok(())
}

fn serve(app: &Arc<App>, socket: SocketRef) {
    let Some(link) = sockets::link(&socket) else { return };
    let Some(watcher) = link.take_found::<Watcher>() else { return };
    let gone = CancellationToken::new();
    let ended = gone.clone();
    socket.on_disconnect(move || {
        ended.cancel();
        ready(())
    });
    let app = app.clone();
    app.clone().connections.spawn(async move {
        let stop = app.stop.clone();
        let shown = gone.run_until_cancelled(show(&app, &socket, &watcher));
        match stop.run_until_cancelled(shown).await {
            None => link.end(Ending::Cut),
            Some(None) => {}
            Some(Some(())) => sockets::send_away(&socket),
        }
    });
}

/// Sends what happens from now on, until the token ends or the dashboard does not read.
async fn show(app: &App, socket: &SocketRef, Watcher { user, .. }: &Watcher) {
    let token_ends = Timestamp::from_millis(user.exp.saturating_mul(1000));
    let ends = Instant::now() + token_ends.since(clock::now());
    // Before the place is looked up, so that nothing comes between the two.
    let mut news = app.noti.news(&user.org_id);
    let Ok(Some(mut after)) = app.store.event_position(&user.org_id, &Since::Now).await else { return };
    loop {
        let query = EventQuery { org: user.org_id.clone(), node: None, after, limit: BATCH };
        let Ok(found) = app.store.events(&query).await else { return };
        let more = found.len() as u64 == BATCH;
        for Received { seq, event, .. } in found {
            if socket.emit(event.kind().as_str(), &event).is_err() {
                return;
            }
            after = seq;
        }
        if more {
            // The connection's own task sends what is queued meanwhile.
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            Ok(()) = news.changed() => {}
            () = sleep_until(ends) => return,
        }
    }
}
