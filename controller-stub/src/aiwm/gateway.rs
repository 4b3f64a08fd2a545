//! The namespace `/ws/node`: who may join it, and what a worker's words mean. A heartbeat is done in place; what
//! may take time goes, in order, to the worker's own task. Which of a node's connections counts is the
//! registry's to say, as for workers of the own dialect.

mod admission;
mod worker;

use std::{
    future::ready,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use metrics::counter;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use socketioxide::{
    SocketIo,
    extract::{SocketRef, TryData},
    handler::ConnectHandler,
};
use tokio::sync::mpsc;

use super::{
    dialect::Dialect,
    sockets::{
        self,
        link::{Ending, Link},
    },
};
use crate::clock;
use admission::{Auth, Found, admit};
use worker::{Mark, Said, Worker};

/// Where workers join.
pub(super) const NAMESPACE: &str = "/ws/node";

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
            let _ = socket.emit("connection.ack", &refused.acknowledgement(clock::now()));
            sockets::send_away(&socket);
            return;
        }
    };
    let app = dialect.app.clone();
    let (say, said) = mpsc::channel(MAX_SAID);
    let mark = Mark::new(&app, node, &link);
    listen(&socket, &mark, &link, say);
    let gone = mark.gone.clone();
    socket.on_disconnect(move || {
        gone.cancel();
        ready(())
    });
    let worker = Worker { app: app.clone(), socket, link, mark, newcomer: Some(admitted) };
    app.connections.spawn_on(worker.serve(said), &app.gateway);
}

/// A heartbeat, as far as it is looked at.
#[derive(Deserialize)]
struct Beat {
    data: Option<BeatData>,
}

#[derive(Deserialize)]
struct BeatData {
    #[serde(default)]
    status: Value,
}

#[derive(Deserialize)]
struct AnyMessage {
    data: Option<IgnoredAny>,
}

fn listen(socket: &SocketRef, mark: &Arc<Mark>, link: &Arc<Link>, say: mpsc::Sender<Said>) {
    let (beating, beats, beat_link) = (mark.clone(), say.clone(), link.clone());
    socket.on("telemetry.heartbeat", move |socket: SocketRef, TryData(beat): TryData<Beat>| {
        match beat.ok().and_then(|beat| beat.data) {
            Some(data) => hear_beat(&beating, &data, &beats, &beat_link),
            None => crash(&socket, "telemetry.heartbeat"),
        }
        ready(())
    });
    let (registering, registers) = (link.clone(), say);
    socket.on("node.register", move |socket: SocketRef, TryData(message): TryData<Value>| {
        let data = message.ok().and_then(|mut message| Some(message.get_mut("data")?.take()));
        match data {
            Some(Value::Object(data)) => hand_on(&registers, Said::Register(data), &registering),
            _ => crash(&socket, "node.register"),
        }
        ready(())
    });
    for event in ["telemetry.metrics", "command.ack", "command.result"] {
        let mark = mark.clone();
        socket.on(event, move |socket: SocketRef, TryData(message): TryData<AnyMessage>| {
            match message.ok().and_then(|message| message.data) {
                Some(IgnoredAny) => mark.renew_lease(),
                None => crash(&socket, event),
            }
            ready(())
        });
    }
}

fn hear_beat(mark: &Mark, data: &BeatData, say: &mpsc::Sender<Said>, link: &Link) {
    mark.renew_lease();
    // A status brings a node back that was set aside.
    if data.status == "online" && mark.set_aside.load(Ordering::Relaxed) {
        hand_on(say, Said::Online, link);
    }
}

/// Gives the worker's task something to do. Who says more than it can do is cut off.
fn hand_on(say: &mpsc::Sender<Said>, said: Said, link: &Link) {
    if say.try_send(said).is_err() {
        link.end(Ending::HangUp);
    }
}

/// What AIWM says when a handler of its own failed.
fn crash(socket: &SocketRef, event: &str) {
    let exception = json!({
        "status": "error", "message": "Internal server error", "cause": { "pattern": event, "data": {} },
    });
    let _ = socket.emit("exception", &exception);
}

impl Mark {
    /// Another connection may have taken over: this one is then not heard any more.
    fn renew_lease(&self) {
        counter!("aio_gateway_messages_total").increment(1);
        if self.app.registry.speaks(&self.node, self.epoch) {
            self.app.lifecycle.workers.renew(&self.node, Instant::now(), clock::now());
        }
    }
}
