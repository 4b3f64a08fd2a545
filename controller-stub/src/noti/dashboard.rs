//! One dashboard's WebSocket: asks who it is, then carries out what `stream` says. What it may see is decided
//! once, by its token: the events that were stored for that organisation.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use aio_protocol::{
    claims::UserClaims,
    dashboard::{Authenticate, DashboardRequest, Notice, NoticeBody, ReceivedEvent, Welcome},
    error_code::ErrorCode,
    ids::OwnerId,
    time::Timestamp,
    wire::close,
};
use metrics::{counter, gauge};
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{sleep_until, timeout},
};

use super::{
    seats::Seat,
    stream::{Effect, Input, Stream},
};
use crate::{
    api::roles::{self, Permission},
    app::App,
    clock,
    store::{EventQuery, Received, Since},
    tokens::Bearer,
    websocket::{End, Message, SendError, Socket},
};

/// How long a dashboard may take to say its token, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A batch has at most `BATCH` events, and ends behind the one with which it reaches `BATCH_BYTES`.
const BATCH: u64 = 64;
const BATCH_BYTES: usize = 64 * 1024;

/// What a dashboard brought with its request.
pub(crate) struct Visitor {
    pub app: Arc<App>,
    pub entry: Entry,
    pub since: Option<String>,
}

/// How far a dashboard has come with its request alone.
pub(crate) enum Entry {
    /// Its token was accepted.
    Admitted(UserClaims, Seat<OwnerId>),
    /// Its token was not.
    Refused(End, Seat<IpAddr>),
    /// Its first message will say its token.
    Waiting(Seat<IpAddr>),
}

/// Serves a dashboard until it ends.
pub(crate) async fn run(visitor: Visitor, mut socket: Socket) {
    gauge!("aio_noti_dashboards").increment(1);
    let stop = visitor.app.stop.clone();
    // Until the socket is closed, unless its token is accepted.
    let mut waiting = None;
    let end = stop.run_until_cancelled(converse(visitor, &mut waiting, &mut socket)).await;
    let end = end.unwrap_or_else(|| End::close(close::RESTART, "the controller restarts"));
    if let End::Close { code, .. } = &end {
        counter!("aio_noti_dashboard_closes_total", "code" => code.to_string()).increment(1);
    }
    socket.finish(end).await;
    gauge!("aio_noti_dashboards").decrement(1);
}

async fn converse(
    Visitor { app, entry, since }: Visitor,
    waiting: &mut Option<Seat<IpAddr>>,
    socket: &mut Socket,
) -> End {
    let app = &*app;
    let shown = async {
        let (user, since, _seat) = match entry {
            Entry::Admitted(user, seat) => (user, since, seat),
            Entry::Refused(end, seat) => {
                *waiting = Some(seat);
                return Err(end);
            }
            Entry::Waiting(seat) => {
                *waiting = Some(seat);
                let Authenticate { token, since: told } = asked_who(socket, app.register_timeout).await?;
                let user = admit(app, &token)?;
                let seat = app.noti.seats.watch(&user.org_id).ok_or_else(|| {
                    End::close(
                        close::TRY_LATER,
                        "RATE_LIMITED: as many dashboards watch as the controller takes",
                    )
                })?;
                *waiting = None;
                (user, told.or(since), seat)
            }
        };
        let token_ends = Timestamp::from_millis(user.exp.saturating_mul(1000));
        // Before the place is looked up, so that nothing comes between the two.
        let mut news = app.noti.news.of(&user.org_id);
        let since = since.map_or(Since::Now, Since::parse);
        let position = app.store.event_position(&user.org_id, &since).await.map_err(failed)?;
        let position = position.ok_or_else(|| match since.is_plausible() {
            true => {
                End::close(close::GONE, format!("{}: the event of `since` is not kept", ErrorCode::EventGone))
            }
            false => {
                End::close(close::MALFORMED, "since: must be an event's id, or a time as RFC 3339 writes it")
            }
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
async fn asked_who(socket: &mut Socket, patience: Duration) -> Result<Authenticate, End> {
    let first = timeout(patience.min(LONGEST_WAIT), async {
        loop {
            match socket.receive().await? {
                Message::Text(text) => return Ok(text),
                Message::Binary => {
                    return Err(End::close(close::MALFORMED, "a binary frame came; there are none"));
                }
                Message::Pong(_) => {}
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
pub(crate) fn admit(app: &App, token: &str) -> Result<UserClaims, End> {
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
    socket: &'a mut Socket,
    stream: Stream,
}

impl Show<'_> {
    async fn go_on(mut self, news: &mut watch::Receiver<()>) -> Result<std::convert::Infallible, End> {
        loop {
            let input = tokio::select! {
                biased;
                message = self.socket.receive() => match message? {
                    Message::Pong(payload) => match <[u8; 8]>::try_from(payload.as_slice()) {
                        Ok(number) => Input::Ponged(u64::from_be_bytes(number)),
                        Err(_) => continue,
                    },
                    Message::Text(_) | Message::Binary => {
                        return Err(End::close(close::MALFORMED, "a dashboard says nothing but who it is"));
                    }
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
                        self.socket.ping(&number.to_be_bytes()).await.map_err(unsent)?;
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
async fn say(socket: &mut Socket, message: &impl Serialize) -> Result<usize, End> {
    let text = serde_json::to_string(message).map_err(|error| {
        tracing::error!(%error, "a message for a dashboard could not be written");
        End::Gone
    })?;
    let bytes = text.len();
    socket.send_text(&text).await.map_err(unsent)?;
    Ok(bytes)
}

fn unsent(error: SendError) -> End {
    match error {
        SendError::Broken => End::Gone,
        SendError::TimedOut => {
            End::close(close::TOO_FAST, "RATE_LIMITED: events come faster than they are read")
        }
    }
}
