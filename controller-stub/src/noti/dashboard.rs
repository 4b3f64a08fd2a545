//! One dashboard's WebSocket: asks who it is, then carries out what `stream` says. What it may see is decided once, by its token: the
//! events that were stored for that organisation.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aio_protocol::{
    claims::UserClaims,
    dashboard::{Authenticate, DashboardRequest, Notice, NoticeBody, ReceivedEvent, Welcome},
    error_code::ErrorCode,
    time::Timestamp,
    wire::close,
};
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use metrics::{counter, gauge};
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{sleep_until, timeout},
};

use super::stream::{Effect, Input, Stream};
use crate::{
    api::roles::{self, Permission},
    app::App,
    clock,
    listener::Seat,
    store::{EventQuery, Received, Since},
    tokens::Bearer,
};

/// A dashboard that does not take a frame for this long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// So long a closed connection may take to say that it has understood.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A batch has at most so many events, and ends behind the one with which it has so many bytes.
const BATCH: u64 = 64;
const BATCH_BYTES: usize = 64 * 1024;

/// What a dashboard brought with its request.
pub(crate) struct Visitor {
    pub app: Arc<App>,
    /// Its place among the connections, until its token was accepted.
    pub place: Option<Arc<Seat>>,
    /// Its place among the dashboards.
    pub seat: OwnedSemaphorePermit,
    /// From the subprotocol; otherwise its first message says it.
    pub token: Option<String>,
    pub since: Option<String>,
}

/// How a connection ends.
enum End {
    /// The dashboard closed it, or it broke.
    Gone,
    /// This end closes it.
    Close { code: u16, reason: String },
}

impl End {
    fn close(code: u16, reason: impl Into<String>) -> Self {
        Self::Close { code, reason: reason.into() }
    }
}

/// Serves a dashboard until it ends.
pub(crate) async fn run(visitor: Visitor, mut socket: WebSocket) {
    gauge!("aio_noti_dashboards").increment(1);
    let _seat = visitor.seat;
    let stop = visitor.app.stop.clone();
    if let Some(place) = &visitor.place {
        place.rouse();
    }
    let conversation = converse(&visitor.app, visitor.place, visitor.token, visitor.since, &mut socket);
    let end = stop.run_until_cancelled(conversation).await;
    let end = end.unwrap_or_else(|| End::close(close::RESTART, "the controller restarts"));
    if let End::Close { code, reason } = end {
        counter!("aio_noti_dashboard_closes_total", "code" => code.to_string()).increment(1);
        let frame = CloseFrame { code, reason: reason.into() };
        let told = timeout(CLOSE_TIMEOUT, async {
            let _ = socket.send(Message::Close(Some(frame))).await;
            // Its answer is waited for: a socket that is dropped with something unread loses what was sent last.
            while let Some(Ok(_)) = socket.recv().await {}
        });
        let _ = told.await;
    }
    gauge!("aio_noti_dashboards").decrement(1);
}

async fn converse(
    app: &App,
    place: Option<Arc<Seat>>,
    token: Option<String>,
    since: Option<String>,
    socket: &mut WebSocket,
) -> End {
    let shown = async {
        let (token, since) = match token {
            Some(token) => (token, since),
            None => {
                let Authenticate { token, since: told } = asked_who(socket, app.register_timeout).await?;
                (token, told.or(since))
            }
        };
        let user = admit(app, &token)?;
        drop(place);
        let token_ends = Timestamp::from_millis(user.exp.saturating_mul(1000));
        // Before the place is looked up, so that nothing comes between the two.
        let mut news = app.noti.news.of(&user.org_id);
        let since = since.map_or(Since::Now, Since::parse);
        let position = app.store.event_position(&user.org_id, &since).await.map_err(failed)?;
        let position = position.ok_or_else(|| {
            End::close(close::GONE, format!("{}: the event of `since` is not kept", ErrorCode::EventGone))
        })?;
        let welcome = Welcome { org_id: user.org_id.clone(), token_expires_at: token_ends };
        say(socket, &notice(NoticeBody::Welcome(welcome))).await?;
        let now = Instant::now();
        let stream = Stream::new(position, now + token_ends.since(clock::now()), app.noti.patience, now);
        Show { app, user, socket, stream }.go_on(&mut news).await
    };
    match shown.await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

/// The first message.
async fn asked_who(socket: &mut WebSocket, patience: Duration) -> Result<Authenticate, End> {
    let first = timeout(patience, async {
        loop {
            match socket.recv().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_))) => {
                    return Err(End::close(close::MALFORMED, "a binary frame came; there are none"));
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Gone),
            }
        }
    });
    let text = first.await.map_err(|_| End::close(close::SILENT, "no token came in time"))??;
    match serde_json::from_str(&text) {
        Ok(DashboardRequest::Authenticate(authenticate)) => Ok(authenticate),
        // The error's own text may hold a piece of the token.
        Err(_) => Err(End::close(close::MALFORMED, "the first message must be `authenticate`, with a token")),
    }
}

/// The user of a token, if it may look.
fn admit(app: &App, token: &str) -> Result<UserClaims, End> {
    match app.enroller.tokens.verify(token) {
        Ok(Bearer::User(user)) if roles::allow(&user.roles, Permission::See) => Ok(user),
        Ok(_) => Err(End::close(
            close::FOREIGN,
            format!("{}: this takes the token of a user who may look", ErrorCode::Forbidden),
        )),
        Err(error) => {
            Err(End::close(close::TOKEN_ENDED, format!("{}: the token opens nothing", error.code())))
        }
    }
}

fn failed(error: crate::store::StoreError) -> End {
    tracing::warn!(error = &error as &dyn std::error::Error, "a dashboard could not be served");
    End::close(close::TRY_LATER, "the controller cannot read its events now")
}

struct Show<'a> {
    app: &'a App,
    user: UserClaims,
    socket: &'a mut WebSocket,
    stream: Stream,
}

impl Show<'_> {
    async fn go_on(mut self, news: &mut watch::Receiver<()>) -> Result<std::convert::Infallible, End> {
        loop {
            let input = tokio::select! {
                biased;
                frame = self.socket.recv() => match frame {
                    Some(Ok(Message::Pong(payload))) => match <[u8; 8]>::try_from(payload.as_ref()) {
                        Ok(number) => Input::Ponged(u64::from_be_bytes(number)),
                        Err(_) => continue,
                    },
                    Some(Ok(Message::Ping(_))) => continue,
                    Some(Ok(Message::Text(_) | Message::Binary(_))) => {
                        return Err(End::close(close::MALFORMED, "a dashboard says nothing but who it is"));
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Gone),
                },
                Ok(()) = news.changed() => Input::NewsCame,
                () = sleep_until(self.stream.deadline().into()) => Input::Elapsed,
            };
            self.take(input).await?;
        }
    }

    async fn take(&mut self, input: Input) -> Result<(), End> {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let (stream, effects) = self.stream.clone().step(input, Instant::now());
            self.stream = stream;
            for effect in effects {
                match effect {
                    Effect::Look { after } => inputs.push(self.send_batch(after).await?),
                    Effect::TellLive => {
                        say(self.socket, &notice(NoticeBody::Live {})).await?;
                    }
                    Effect::Ping(number) => {
                        let payload = number.to_be_bytes().to_vec();
                        send(self.socket, Message::Ping(payload.into())).await?;
                    }
                    Effect::Close { code, reason } => return Err(End::close(code, reason)),
                }
            }
        }
        Ok(())
    }

    async fn send_batch(&mut self, after: i64) -> Result<Input, End> {
        let query = EventQuery { org: self.user.org_id.clone(), node: None, after, limit: BATCH };
        let found = self.app.store.events(&query).await.map_err(failed)?;
        let mut more = found.len() as u64 == BATCH;
        let (mut bytes, mut last) = (0, None);
        for Received { id, seq, event } in found {
            if bytes >= BATCH_BYTES {
                more = true;
                break;
            }
            bytes += say(self.socket, &ReceivedEvent { id, event }).await?;
            last = Some(seq);
        }
        Ok(Input::Sent { last, more })
    }
}

fn notice(body: NoticeBody) -> Notice {
    Notice { body, timestamp: clock::now() }
}

/// Sends a message, and says how many bytes it has.
async fn say(socket: &mut WebSocket, message: &impl Serialize) -> Result<usize, End> {
    let text = serde_json::to_string(message).map_err(|error| {
        tracing::error!(%error, "a message for a dashboard could not be written");
        End::Gone
    })?;
    let bytes = text.len();
    send(socket, Message::text(text)).await?;
    Ok(bytes)
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), End> {
    match timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(End::close(close::TOO_FAST, "RATE_LIMITED: events come faster than they are read")),
    }
}
