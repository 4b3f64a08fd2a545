//! Simulated workers for whoever looks at a fleet. They run on a thread of their own until they are dropped.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use aio_protocol::{ids::NodeId, wire::GATEWAY_PATH};
use aio_worker::session::machine::Timings;
use anyhow::{Context, Result};
use tokio::{runtime::Runtime, sync::watch};
use tokio_tungstenite::Connector;

use crate::{
    controller::Dialect,
    fleet::Counts,
    words::{Mood, Words},
    worker::{Place, Talk, Worker},
};

/// GPUs of each machine.
const GPUS: usize = 8;

/// Workers that are well, and some that are not.
#[derive(Debug)]
pub struct Showcase {
    runtime: Runtime,
    controller: SocketAddr,
    counts: Arc<Counts>,
    // Its receivers say what is talked about for as long as this is there.
    talk: watch::Sender<Talk>,
}

impl Showcase {
    /// Nobody yet, at the controller at `url`, e.g. `http://127.0.0.1:3305`.
    pub fn at(url: &str) -> Result<Self> {
        let host = url.strip_prefix("http://").context("the controller does not speak plain HTTP")?;
        Ok(Self {
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?,
            controller: host.trim_end_matches('/').parse()?,
            counts: Arc::default(),
            talk: watch::channel(Talk::Everything).0,
        })
    }

    /// Starts the worker of a node.
    pub fn start(&self, node: NodeId, token: String, mood: Mood) -> Result<()> {
        let place = Place {
            controllers: [self.controller].into(),
            source: Ipv4Addr::LOCALHOST,
            endpoint: format!("ws://{}{GATEWAY_PATH}", self.controller).parse()?,
            connector: Connector::Plain,
            dialect: Dialect::Own,
            node: node.clone(),
            token,
        };
        let words = Words::new(node, GPUS).of_mood(mood);
        let worker =
            Worker::new(place, words, self.counts.clone(), self.talk.subscribe(), Timings::default());
        self.runtime.spawn(worker.run());
        Ok(())
    }

    /// How many are online.
    pub fn online(&self) -> u64 {
        self.counts.online()
    }
}
