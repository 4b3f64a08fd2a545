//! The namespace `/ws/node`: who may join it, and what a worker's words mean. A heartbeat is done in place;
//! what may take time goes, in order, to the worker's own task. Which of a node's connections counts is the
//! registry's to say, as for workers of the own dialect.

mod admission;
mod worker;

use std::{
    future::ready,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use aio_protocol::aiwm::{
    NAMESPACE,
    controller::{Cause, Exception},
    event,
};
use metrics::counter;
use serde_json::{Map, Value, json};
use socketioxide::{
    SocketIo,
    extract::{Event, SocketRef, TryData},
    handler::ConnectHandler,
};
use tokio::sync::mpsc;

use super::{
    dialect::Dialect,
    double::recording::{By, Entry},
    measured::measured,
    sockets::{
        self,
        link::{Ending, Link},
    },
};
use crate::clock;
use admission::{Auth, Found, admit};
use worker::{Mark, Said, Worker};

/// What a worker may have said that its task has not done yet.
const MAX_SAID: usize = 16;

/// Opens the namespace.
pub(super) fn open(io: &SocketIo, dialect: &Arc<Dialect>) {
    let (admitting, serving) = (dialect.clone(), dialect.clone());
    let admit = move |socket: SocketRef, TryData(auth): TryData<Auth>| {
        let dialect = admitting.clone();
        async move { admit(&dialect, &socket, auth.unwrap_or_default()).await }
    };
    let serve = move |socket: SocketRef| {
        serve(&serving, socket);
        ready(())
    };
    io.ns(NAMESPACE, serve.with(admit));
}

/// Listens to a worker that has joined. Runs before anything else of it is read.
fn serve(dialect: &Arc<Dialect>, socket: SocketRef) {
    let Some(link) = sockets::link(&socket) else { return };
    let Some(found) = link.take_found::<Found>() else { return };
    let (node, admitted) = match found {
        Found::Worker(node, admitted) => (node, admitted),
        Found::Refused(refused) => {
            let _ = socket.emit(event::CONNECTION_ACK, &refused.acknowledgement(clock::now()));
            sockets::send_away(&socket);
            return;
        }
    };
    let app = dialect.app.clone();
    let (say, said) = mpsc::channel(MAX_SAID);
    let mark = Mark::new(&app, node, &link);
    let ear = Arc::new(Ear { dialect: dialect.clone(), mark: mark.clone(), link: link.clone(), say });
    listen(&socket, &ear);
    socket.on_disconnect(move || {
        ear.mark.gone.cancel();
        ready(())
    });
    let worker = Worker { dialect: dialect.clone(), socket, link, mark, newcomer: Some(admitted) };
    app.connections.spawn_on(worker.serve(said), &app.gateway);
}

/// What every word of a worker is heard with.
struct Ear {
    dialect: Arc<Dialect>,
    mark: Arc<Mark>,
    link: Arc<Link>,
    say: mpsc::Sender<Said>,
}

/// Everything that is heard. Of what else a worker says nothing comes.
const HEARD: [&str; 5] =
    [event::HEARTBEAT, event::REGISTER, event::METRICS, event::COMMAND_ACK, event::COMMAND_RESULT];

fn listen(socket: &SocketRef, ear: &Arc<Ear>) {
    for name in HEARD {
        let ear = ear.clone();
        socket.on(name, move |socket: SocketRef, TryData(message): TryData<Value>| {
            ear.hear(&socket, name, message.unwrap_or_default());
            ready(())
        });
    }
    if ear.dialect.double.is_some() {
        let ear = ear.clone();
        socket.on_fallback(move |Event(name): Event, TryData(message): TryData<Value>| {
            ear.record(&name, &message.unwrap_or_default());
            ready(())
        });
    }
}

impl Ear {
    fn hear(&self, socket: &SocketRef, name: &'static str, mut message: Value) {
        self.record(name, &message);
        let Some(Value::Object(data)) = message.get_mut("data").map(Value::take) else {
            return self.crash(socket, name);
        };
        match name {
            event::HEARTBEAT => self.hear_beat(&data),
            event::REGISTER => self.hand_on(Said::Register(data)),
            event::METRICS => {
                self.mark.renew_lease();
                self.mark.keep_metrics(data);
            }
            _ => self.mark.renew_lease(),
        }
    }

    fn hear_beat(&self, data: &Map<String, Value>) {
        let Self { dialect, mark, .. } = self;
        if dialect.double.as_ref().is_some_and(|double| double.faults().lose_heartbeat(&mark.node)) {
            return;
        }
        mark.renew_lease();
        if let Some(seconds) = data.get("uptimeSeconds").and_then(Value::as_u64) {
            mark.uptime_seconds.store(seconds, Ordering::Relaxed);
        }
        // A status brings a node back that was set aside.
        let says_online = data.get("status").is_some_and(|status| status == "online");
        if says_online && mark.set_aside.load(Ordering::Relaxed) {
            self.hand_on(Said::Online);
        }
    }

    /// Gives the worker's task something to do. Who says more than it can do is cut off.
    fn hand_on(&self, said: Said) {
        if self.say.try_send(said).is_err() {
            self.link.end(Ending::HangUp);
        }
    }

    /// Says what AIWM says when a handler of its own failed.
    fn crash(&self, socket: &SocketRef, name: &str) {
        let cause = Cause { pattern: name.to_owned(), data: Some(json!({})) };
        let message = "Internal server error".to_owned();
        let exception = Exception { status: "error".into(), message, cause: Some(cause) };
        worker::emit(&self.dialect, &self.mark.node, socket, event::EXCEPTION, &exception);
    }

    fn record(&self, name: &str, message: &Value) {
        self.dialect.record(|| Entry {
            at: clock::now(),
            by: By::Peer,
            node_id: Some(self.mark.node.clone()),
            what: name.to_owned(),
            status: None,
            body: message.clone(),
        });
    }
}

impl Mark {
    /// Another connection may have taken over: this one is then not heard any more.
    fn renew_lease(&self) {
        counter!("aio_gateway_messages_total").increment(1);
        if self.app.registry.speaks(&self.node, self.epoch) {
            self.app.lifecycle.workers.renew(&self.node, Instant::now(), clock::now());
        }
    }

    fn keep_metrics(&self, data: Map<String, Value>) {
        let uptime = self.uptime_seconds.load(Ordering::Relaxed);
        // No heartbeat has told it yet.
        if uptime == 0 || !self.app.registry.speaks(&self.node, self.epoch) {
            return;
        }
        if let Some(metrics) = measured(&self.node, data, uptime) {
            self.app.telemetry.receive(self.epoch, &metrics, clock::now());
        }
    }
}
