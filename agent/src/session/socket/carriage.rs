//! A connection to an AIWM: a node token first, then the WebSocket, then frames both ways through a
//! [`Conversation`]. Whatever ends it, the socket is closed from this side.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aio_installer::Failure;
use aio_protocol::error_code::ErrorCode;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::{debug, warn};
use uuid::Uuid;

use super::{
    Account, Credentials, Event, Outgoing, Pending, Setback, Socket, Trusted, broken, connect, nobody_listens,
};
use crate::{
    aiwm::account::AccountRoute,
    session::{
        conversation::{Conversation, Moment, Step},
        setback::{LONGEST_TOLD, Patience},
    },
};

/// Logs in where there is no token, joins, and carries frames until the session ends.
pub(super) async fn session(
    route: &AccountRoute,
    credentials: &Credentials,
    trusted: &Trusted,
    account: &Account,
    events: &mpsc::Sender<Event>,
    pending: &Pending,
) -> Setback {
    let pass = match account.pass(route).await {
        Ok(pass) => pass,
        Err(failure) => return setback(failure),
    };
    let socket = match connect(credentials, trusted).await {
        Ok(socket) => socket,
        Err(setback) => return setback,
    };
    let now = Instant::now().into_std();
    let node = route.credentials.node_id.clone();
    let conversation = Mutex::new(Conversation::new(node, pass.secret.clone(), pass.is_fresh, now));
    let (setback, refused) = carry(socket, events, pending, &conversation).await;
    if refused {
        account.refused(&pass.secret).await;
    }
    setback
}

/// A failure before the connection, in the session's words.
fn setback(failure: Failure) -> Setback {
    let told = failure.details.get("retryAfterSeconds").and_then(serde_json::Value::as_u64);
    let patience = match told {
        Some(seconds) => Patience::Told(Duration::from_secs(seconds).min(LONGEST_TOLD)),
        None if failure.code.needs_a_person() || failure.code == ErrorCode::RateLimited => Patience::Long,
        None => Patience::Backoff,
    };
    Setback::failed(failure, patience)
}

/// Carries frames; says why that ended, and whether the join's token was refused.
async fn carry(
    socket: Socket,
    events: &mpsc::Sender<Event>,
    pending: &Pending,
    conversation: &Mutex<Conversation>,
) -> (Setback, bool) {
    if events.send(Event::Opened).await.is_err() {
        return (nobody_listens(), false);
    }
    let (sink, stream) = socket.split();
    let setback = tokio::select! {
        setback = read(stream, events, pending, conversation) => setback,
        setback = write(sink, pending, conversation) => setback,
    };
    let refused = locked(conversation).was_refused();
    (setback, refused)
}

fn locked(conversation: &Mutex<Conversation>) -> MutexGuard<'_, Conversation> {
    conversation.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read(
    mut stream: impl Stream<Item = Result<Message, Error>> + Unpin,
    events: &mpsc::Sender<Event>,
    pending: &Pending,
    conversation: &Mutex<Conversation>,
) -> Setback {
    let mut close = None;
    loop {
        let deadline = locked(conversation).deadline();
        let Ok(message) = timeout_at(Instant::from_std(deadline), stream.next()).await else {
            return locked(conversation).silent();
        };
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Pong(payload))) => {
                if let Ok(number) = <[u8; 8]>::try_from(payload.as_ref())
                    && events.send(Event::Ponged(u64::from_be_bytes(number))).await.is_err()
                {
                    return nobody_listens();
                }
                continue;
            }
            Some(Ok(Message::Binary(_))) => {
                return Setback::new(ErrorCode::ControllerInvalid, "AIWM sent a binary frame");
            }
            Some(Ok(Message::Close(frame))) => {
                let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                    (frame.code.into(), frame.reason.as_str().to_owned())
                });
                close = Some(Setback::of_close(code, &reason));
                continue;
            }
            Some(Ok(_)) => continue,
            Some(Err(error)) => return close.unwrap_or_else(|| broken(&error)),
            None => return close.unwrap_or_else(|| broken(&Error::ConnectionClosed)),
        };
        let at =
            Moment { now: Instant::now().into_std(), wall: SystemTime::now().into(), id: Uuid::now_v7() };
        let steps = locked(conversation).heard(text.as_str(), at);
        for step in steps {
            match step {
                Step::Say(packet) => {
                    if !pending.put(Outgoing::Packet(packet)) {
                        debug!("an answer was dropped: AIWM does not read");
                    }
                }
                Step::Heard(text) => {
                    if events.send(Event::Text(text)).await.is_err() {
                        return nobody_listens();
                    }
                }
                Step::Declined { kind, message_id } => {
                    warn!(message_id, kind, "AIWM asked for something that this worker cannot do");
                }
                Step::End(setback) => return setback,
            }
        }
    }
}

async fn write(
    mut sink: impl Sink<Message, Error = Error> + Unpin,
    pending: &Pending,
    conversation: &Mutex<Conversation>,
) -> Setback {
    loop {
        let messages = match pending.next().await {
            Outgoing::Text(kind, text) => {
                let said = locked(conversation).say(&text, Instant::now().into_std());
                if said.is_none() {
                    debug!(kind, "AIWM has no word for this message");
                }
                said.into_iter().map(Message::text).collect()
            }
            Outgoing::Packet(packet) => vec![Message::text(packet)],
            Outgoing::Ping(number) => vec![Message::Ping(number.to_be_bytes().to_vec().into())],
            Outgoing::Close => vec![Message::text(Conversation::goodbye()), Message::Close(None)],
        };
        for message in messages {
            let closing = message.is_close();
            if let Err(error) = sink.send(message).await {
                // What the other end said last tells more than that it is gone: the reader finds it.
                debug!(%error, "the connection takes no more");
                return std::future::pending().await;
            }
            if closing {
                return std::future::pending().await;
            }
        }
    }
}
