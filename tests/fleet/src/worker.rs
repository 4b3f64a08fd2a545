//! One simulated worker: the daemon's own session machine (so its backoff, pace and patience),
//! driven by a task that holds one socket with small buffers and nothing else. What it talks about
//! is told from outside, so that a phase can be only heartbeats.

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use aio_protocol::{
    error_code::ErrorCode,
    ids::NodeId,
    time::Timestamp,
    wire::{ControllerMessage, SUBPROTOCOL},
};
use aio_worker::session::{
    backoff::Jitter,
    conversation::{self, Conversation, Step},
    machine::{Effect, Input, Moment, Session, State, Timings},
    setback::Setback,
};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::watch,
    time::{sleep_until, timeout},
};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{Error, Message, client::ClientRequestBuilder, http::Uri, protocol::WebSocketConfig},
};

use uuid::Uuid;

use crate::{controller::Dialect, fleet::Counts, words::Words};

/// Thousands of these stand in one process.
const BUFFER_BYTES: usize = 1024;

/// A controller that takes no frame for so long is as good as gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);

/// What the fleet talks about at present.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Talk {
    /// What a daemon says, at the pace that the controller told it.
    Everything,
    /// Nothing; the socket stays open and pings are answered.
    Nothing,
    /// Heartbeats alone, so often; each with the ping that a daemon sends behind it, or without.
    Heartbeats { every: Duration, pings: bool },
}

/// Where a worker connects, from where, and as whom.
#[derive(Clone)]
pub(crate) struct Place {
    /// Any of these, as a load balancer has it.
    pub controllers: Arc<[SocketAddr]>,
    pub source: Ipv4Addr,
    pub endpoint: Uri,
    pub connector: Connector,
    pub dialect: Dialect,
    pub node: NodeId,
    pub token: String,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

enum Link {
    None,
    Dialling(Pin<Box<dyn Future<Output = Result<Box<Socket>, Setback>> + Send>>),
    Open(Box<Socket>),
}

enum Event {
    Opened(Result<Box<Socket>, Setback>),
    Frame(Option<Result<Message, Error>>),
}

pub(crate) struct Worker {
    place: Place,
    words: Words,
    counts: Arc<Counts>,
    talk: watch::Receiver<Talk>,
    session: Session,
    link: Link,
    /// Between the words and the frames, where the dialect is AIWM's.
    conversation: Option<Box<Conversation>>,
    /// Of the last heartbeat that was really sent in this session.
    seq: u64,
    /// When the next heartbeat is due that the machine does not know of.
    own_beat: Option<Instant>,
}

impl Worker {
    pub(crate) fn new(
        place: Place,
        words: Words,
        counts: Arc<Counts>,
        talk: watch::Receiver<Talk>,
        timings: Timings,
    ) -> Self {
        Self {
            place,
            words,
            counts,
            talk,
            session: Session::new(timings, Instant::now()),
            link: Link::None,
            conversation: None,
            seq: 0,
            own_beat: None,
        }
    }

    /// Connects and stays connected, for ever.
    pub(crate) async fn run(mut self) {
        self.take(Input::FactsRead).await;
        loop {
            let deadline = self.session.deadline().into_iter().chain(self.own_beat).min();
            let deadline = deadline.map_or_else(tokio::time::Instant::now, tokio::time::Instant::from_std);
            tokio::select! {
                biased;
                event = self.link.next() => self.heard(event).await,
                Ok(()) = self.talk.changed() => self.schedule(),
                () = sleep_until(deadline) => self.elapsed().await,
            }
        }
    }

    /// A fleet that was told to talk faster does not begin in step.
    fn schedule(&mut self) {
        self.own_beat = match *self.talk.borrow_and_update() {
            Talk::Heartbeats { every, .. } => Some(Instant::now() + every.mul_f64(fastrand::f64())),
            Talk::Everything | Talk::Nothing => None,
        };
    }

    async fn elapsed(&mut self) {
        let now = Instant::now();
        let talk = *self.talk.borrow();
        if let (Talk::Heartbeats { every, pings }, Some(due)) = (talk, self.own_beat)
            && due <= now
        {
            self.own_beat = Some(now.max(due + every));
            if matches!(self.session.state(), State::Online(_)) {
                // The machine did not send it, and expects no answer to the number 0.
                self.beat(pings.then_some(0)).await;
            }
        }
        if self.session.deadline().is_some_and(|deadline| deadline <= now) {
            self.take(Input::Elapsed).await;
        }
    }

    async fn heard(&mut self, event: Event) {
        let message = match event {
            Event::Opened(Ok(socket)) => {
                self.link = Link::Open(socket);
                self.seq = 0;
                self.conversation = (self.place.dialect == Dialect::Aiwm).then(|| {
                    let (node, token) = (self.place.node.clone(), self.place.token.clone().into());
                    Box::new(Conversation::new(node, token, false, Instant::now()))
                });
                return self.take(Input::SocketOpened).await;
            }
            Event::Opened(Err(setback)) => return self.lose(setback).await,
            Event::Frame(Some(Ok(message))) => message,
            Event::Frame(Some(Err(error))) => return self.lose(broken(&error)).await,
            Event::Frame(None) => return self.lose(broken(&Error::ConnectionClosed)).await,
        };
        match message {
            Message::Text(text) => self.read(&text).await,
            Message::Pong(payload) => {
                self.counts.pong();
                if let Ok(number) = <[u8; 8]>::try_from(payload.as_ref()) {
                    self.take(Input::PongReceived(u64::from_be_bytes(number))).await;
                }
            }
            Message::Close(frame) => {
                let setback = frame.map_or_else(
                    || Setback::of_close(1005, ""),
                    |frame| Setback::of_close(frame.code.into(), frame.reason.as_str()),
                );
                // The library's answer goes out with the next flush.
                if let Link::Open(socket) = &mut self.link {
                    let _ = timeout(SEND_TIMEOUT, socket.flush()).await;
                }
                self.lose(setback).await;
            }
            Message::Binary(_) | Message::Ping(_) | Message::Frame(_) => {}
        }
    }

    async fn read(&mut self, text: &str) {
        let Some(conversation) = &mut self.conversation else { return self.understand(text).await };
        let now = Timestamp::from(SystemTime::now());
        let at = conversation::Moment { now: Instant::now(), wall: now, id: Uuid::now_v7() };
        for step in conversation.heard(text, at) {
            match step {
                Step::Say(packet) => {
                    if let Some(lost) = self.send(Message::text(packet)).await {
                        return self.take(lost).await;
                    }
                }
                Step::Heard(text) => self.understand(&text).await,
                Step::Declined { .. } => {}
                Step::End(setback) => return self.lose(setback).await,
            }
        }
    }

    async fn understand(&mut self, text: &str) {
        if let Ok(frame) = ControllerMessage::decode(text) {
            self.take(Input::FrameReceived(frame.message_id, frame.message)).await;
        }
    }

    async fn lose(&mut self, setback: Setback) {
        self.link = Link::None;
        self.counts.setback(&setback);
        self.take(Input::SocketLost(setback)).await;
    }

    /// Gives the machine one input, does what it says, and gives it what came of that.
    async fn take(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let was_online = self.is_online();
            let at = Moment { now: Instant::now(), jitter: Jitter::new(fastrand::f64()) };
            let (session, effects) = self.session.clone().step(input, at);
            self.session = session;
            self.counts.moved(was_online, self.is_online());
            for effect in effects {
                inputs.extend(self.perform(effect).await);
            }
        }
    }

    fn is_online(&self) -> bool {
        matches!(self.session.state(), State::Online(_))
    }

    async fn perform(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Dial => self.link = Link::Dialling(Box::pin(dial(self.place.clone()))),
            Effect::HangUp => {
                self.counts.hung_up();
                self.link = Link::None;
            }
            Effect::SendRegister => return self.say(self.words.register()).await,
            Effect::SendBeat(number) if *self.talk.borrow() == Talk::Everything => {
                return self.beat(Some(number)).await;
            }
            // Nobody expects a pong of a heartbeat that was not sent.
            Effect::SendBeat(number) => return Some(Input::PongReceived(number)),
            Effect::SendMetrics if *self.talk.borrow() == Talk::Everything => {
                return self.say(self.words.metrics()).await;
            }
            // Its tokens outlive any simulation.
            Effect::KeepToken | Effect::WeighOffer(..) | Effect::HearOfUpdate(..) => {}
            Effect::SendMetrics | Effect::RefuseCommand { .. } | Effect::SayGoodbye => {}
        }
        None
    }

    async fn beat(&mut self, ping: Option<u64>) -> Option<Input> {
        self.seq += 1;
        self.counts.beat();
        let lost = self.say(self.words.heartbeat(self.seq)).await;
        match (lost, ping) {
            (None, Some(number)) => self.send(Message::Ping(number.to_be_bytes().to_vec().into())).await,
            (lost, _) => lost,
        }
    }

    async fn say(&mut self, words: String) -> Option<Input> {
        let words = match &mut self.conversation {
            None => Some(words),
            Some(conversation) => conversation.say(&words, Instant::now()),
        };
        self.send(Message::text(words?)).await
    }

    async fn send(&mut self, message: Message) -> Option<Input> {
        let Link::Open(socket) = &mut self.link else { return None };
        let setback = match timeout(SEND_TIMEOUT, socket.send(message)).await {
            Ok(Ok(())) => return None,
            Ok(Err(error)) => broken(&error),
            Err(_) => Setback::new(ErrorCode::ControllerUnreachable, "the controller takes no frame"),
        };
        self.link = Link::None;
        self.counts.setback(&setback);
        Some(Input::SocketLost(setback))
    }
}

impl Link {
    async fn next(&mut self) -> Event {
        match self {
            Self::None => std::future::pending().await,
            Self::Dialling(dialling) => Event::Opened(dialling.await),
            Self::Open(socket) => Event::Frame(socket.next().await),
        }
    }
}

async fn dial(place: Place) -> Result<Box<Socket>, Setback> {
    let unreachable = |error: std::io::Error| {
        Setback::new(ErrorCode::ControllerUnreachable, format!("cannot reach a controller: {error}"))
    };
    let stream = reach(&place).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let request = ClientRequestBuilder::new(place.endpoint);
    let request = match place.dialect {
        Dialect::Own => request
            .with_sub_protocol(SUBPROTOCOL)
            .with_header("Authorization", format!("Bearer {}", place.token)),
        Dialect::Aiwm => request,
    };
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = BUFFER_BYTES;
    config.write_buffer_size = 0;
    match client_async_tls_with_config(request, stream, Some(config), Some(place.connector)).await {
        Ok((socket, _)) => Ok(Box::new(socket)),
        Err(Error::Http(response)) => {
            Err(Setback::of_http((&*response).into(), Timestamp::from(SystemTime::now())))
        }
        Err(error) => Err(broken(&error)),
    }
}

/// Connects to one of the controllers that chance names, or to the next that takes connections.
async fn reach(place: &Place) -> std::io::Result<TcpStream> {
    let all = place.controllers.len();
    let first = fastrand::usize(0..all.max(1));
    let mut failed = std::io::ErrorKind::NotFound.into();
    for controller in place.controllers.iter().cycle().skip(first).take(all) {
        let socket = TcpSocket::new_v4()?;
        // A fleet has more ports than one address.
        socket.bind((place.source, 0).into())?;
        match socket.connect(*controller).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn broken(error: &Error) -> Setback {
    Setback::new(ErrorCode::ControllerUnreachable, format!("the connection broke: {error}"))
}
