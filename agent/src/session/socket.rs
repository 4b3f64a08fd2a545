//! One connection to the controller as one task: dials, then carries frames both ways until either
//! end is done. Dropping the [`Link`] ends it. Turns what went wrong into setbacks; decides neither
//! when to dial nor what to say. Where the controller is an AIWM, `carriage` carries the frames in its
//! dialect, and nobody else knows.

mod carriage;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aio_host::{
    dial,
    proxy::{Blocked, Proxy},
    tls,
};
use aio_protocol::{
    aiwm::MAX_MESSAGE_BYTES,
    error_code::ErrorCode,
    failure::Failure,
    time::Timestamp,
    wire::{MAX_FRAME_BYTES, SUBPROTOCOL},
};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use secrecy::ExposeSecret;
use tokio::{
    net::TcpStream,
    sync::{Notify, mpsc},
};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{
        Error, Message,
        client::ClientRequestBuilder,
        error::CapacityError,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Trusted,
    send_queue::{Outgoing, SendQueue},
    setback::{Patience, Setback},
};
use crate::{aiwm::account::Account, config::Credentials, endpoint::Endpoint};

/// The buffers' size. The library's own default would cost 256 KiB for a connection that carries
/// one kilobyte in half a minute.
const BUFFER_BYTES: usize = 4 * 1024;

/// Events that the loop has not heard yet; the task waits with the next one.
const UNHEARD: usize = 32;

/// What came from the other end.
#[derive(Debug)]
pub enum Event {
    /// The WebSocket is open.
    Opened,
    /// The text of a frame.
    Text(String),
    /// The answer to the ping of this number.
    Ponged(u64),
    /// Dialling failed, or the connection ended. Nothing comes after it.
    Lost(Setback),
}

/// What waits to be sent, between the loop and the task.
#[derive(Debug, Default)]
struct Pending {
    queue: Mutex<SendQueue>,
    news: Notify,
}

impl Pending {
    fn queue(&self) -> MutexGuard<'_, SendQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in the queue; false when there is no room for it.
    fn put(&self, message: Outgoing) -> bool {
        let taken = self.queue().push(message);
        self.news.notify_one();
        taken
    }

    async fn next(&self) -> Outgoing {
        loop {
            let message = self.queue().pop();
            match message {
                Some(message) => return message,
                // A message that is put in between the two is not missed: it leaves a permit.
                None => self.news.notified().await,
            }
        }
    }
}

/// A connection, or the attempt to make one.
#[derive(Debug)]
pub struct Link {
    events: mpsc::Receiver<Event>,
    pending: Arc<Pending>,
    _task: AbortOnDropHandle<()>,
}

impl Link {
    /// Begins to dial.
    pub fn dial(credentials: Credentials, trusted: Trusted, account: Account) -> Self {
        let (event_sender, events) = mpsc::channel(UNHEARD);
        let pending = Arc::new(Pending::default());
        let waiting = pending.clone();
        let task = tokio::spawn(async move {
            let setback = match &credentials.aiwm {
                Some(of) => {
                    carriage::session(of, &credentials, &trusted, &account, &event_sender, &waiting).await
                }
                None => match connect(&credentials, &trusted).await {
                    Ok(socket) => carry(socket, &event_sender, &waiting).await,
                    Err(setback) => setback,
                },
            };
            // Nobody listens any more when the link was dropped, and then nobody misses it.
            let _ = event_sender.send(Event::Lost(setback)).await;
        });
        Self { events, pending, _task: AbortOnDropHandle::new(task) }
    }

    /// The next event.
    pub async fn event(&mut self) -> Event {
        let ended = || Event::Lost(Setback::new(ErrorCode::Internal, "the connection's task ended"));
        self.events.recv().await.unwrap_or_else(ended)
    }

    /// Puts a message in the queue; false when there is no room for it or the connection has ended.
    pub fn send(&self, message: Outgoing) -> bool {
        !self.events.is_closed() && self.pending.put(message)
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(credentials: &Credentials, trusted: &Trusted) -> Result<Socket, Setback> {
    let Credentials { endpoint, secret, trust, proxy, aiwm, .. } = credentials;
    let mut request = ClientRequestBuilder::new(endpoint.uri().clone())
        .with_header("User-Agent", concat!("aio-worker/", env!("CARGO_PKG_VERSION")));
    if aiwm.is_none() {
        request = request
            .with_sub_protocol(SUBPROTOCOL)
            .with_header("Authorization", format!("Bearer {}", secret.expose_secret()));
    }
    let longest = longest_frame(aiwm.is_some());
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = BUFFER_BYTES;
    config.write_buffer_size = 0;
    config.max_message_size = Some(longest);
    config.max_frame_size = Some(longest);
    let connector =
        if endpoint.encrypted() { Connector::Rustls(trusted.config(trust).await?) } else { Connector::Plain };
    let stream = match proxy {
        None => dial::connect(endpoint.host().unwrap_or_default(), endpoint.port())
            .await
            .map_err(|error| refused(Error::Io(error), endpoint))?,
        Some(proxy) => {
            proxy.connect(endpoint.uri()).await.map_err(|error| blocked(&error, proxy, endpoint))?
        }
    };
    match client_async_tls_with_config(request, stream, Some(config), Some(connector)).await {
        Ok((socket, _)) => Ok(socket),
        Err(error) => {
            if let Some(objection) = tls::explain(&error) {
                trusted.forget();
                let failure = objection.while_trying(format!("cannot connect to {}", endpoint.in_words()));
                return Err(Setback::failed(failure, Patience::Long));
            }
            Err(refused(error, endpoint))
        }
    }
}

/// The largest frame that is taken, in bytes.
fn longest_frame(of_aiwm: bool) -> usize {
    if of_aiwm { MAX_MESSAGE_BYTES } else { MAX_FRAME_BYTES }
}

fn blocked(error: &Blocked, proxy: &Proxy, endpoint: &Endpoint) -> Setback {
    let (code, patience) = match error {
        Blocked::Unreachable(_) => (ErrorCode::ControllerUnreachable, Patience::Backoff),
        Blocked::Refused(_) => (ErrorCode::ProxyRefused, Patience::Long),
    };
    let message = format!("cannot reach {} through {}: {error}", endpoint.in_words(), proxy.address());
    Setback::failed(Failure::new(code, message), patience)
}

fn refused(error: Error, endpoint: &Endpoint) -> Setback {
    match error {
        Error::Http(response) => {
            Setback::of_http((&*response).into(), Timestamp::from(std::time::SystemTime::now()))
        }
        Error::Io(error) => Setback::new(
            ErrorCode::ControllerUnreachable,
            format!("cannot reach {}: {error}", endpoint.in_words()),
        ),
        error => Setback::new(
            ErrorCode::ControllerInvalid,
            format!("what answers at {} is no AIWM controller: {error}", endpoint.in_words()),
        ),
    }
}

/// Carries frames until the connection ends. Reading and writing go on side by side: a controller
/// that does not read must not keep its own words, a close among them, from being heard.
async fn carry(socket: Socket, events: &mpsc::Sender<Event>, pending: &Pending) -> Setback {
    let (sink, stream) = socket.split();
    if events.send(Event::Opened).await.is_err() {
        return nobody_listens();
    }
    tokio::select! {
        setback = read(stream, events) => setback,
        setback = write(sink, pending) => setback,
    }
}

async fn read(
    mut stream: impl Stream<Item = Result<Message, Error>> + Unpin,
    events: &mpsc::Sender<Event>,
) -> Setback {
    let mut close = None;
    while let Some(message) = stream.next().await {
        let event = match message {
            Ok(Message::Text(text)) => Event::Text(text.as_str().to_owned()),
            Ok(Message::Pong(payload)) => match <[u8; 8]>::try_from(payload.as_ref()) {
                Ok(number) => Event::Ponged(u64::from_be_bytes(number)),
                Err(_) => continue,
            },
            // The answer to the close is the library's; the stream ends behind it.
            Ok(Message::Close(frame)) => {
                close = Some(frame.map_or_else(
                    || Setback::of_close(1005, ""),
                    |frame| Setback::of_close(frame.code.into(), frame.reason.as_str()),
                ));
                continue;
            }
            Ok(_) => continue,
            Err(error) => return close.unwrap_or_else(|| broken(&error)),
        };
        if events.send(event).await.is_err() {
            return nobody_listens();
        }
    }
    close.unwrap_or_else(|| broken(&Error::ConnectionClosed))
}

async fn write(mut sink: impl Sink<Message, Error = Error> + Unpin, pending: &Pending) -> Setback {
    loop {
        let message = pending.next().await;
        let closing = message == Outgoing::Close;
        let message = match message {
            Outgoing::Text(_, text) | Outgoing::Packet(text) => Message::text(text),
            Outgoing::Ping(number) => Message::Ping(number.to_be_bytes().to_vec().into()),
            Outgoing::Close => {
                Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Default::default() }))
            }
        };
        if let Err(error) = sink.send(message).await {
            // What the other end said last tells more than that it is gone: the reader finds it.
            tracing::debug!(%error, "the connection takes no more");
            return std::future::pending().await;
        }
        if closing {
            return std::future::pending().await;
        }
    }
}

fn nobody_listens() -> Setback {
    Setback::new(ErrorCode::Internal, "the connection was given up")
}

fn broken(error: &Error) -> Setback {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => Setback::new(
            ErrorCode::ControllerInvalid,
            format!("the controller sent a frame of more than {max_size} bytes"),
        ),
        error => Setback::new(
            ErrorCode::ControllerUnreachable,
            format!("the connection to the controller broke: {error}"),
        ),
    }
}
