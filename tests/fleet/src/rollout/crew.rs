//! A few simulated workers for whoever shows a rollout. They run on threads of their own until they are
//! dropped.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::Ordering},
};

use aio_protocol::{ids::NodeId, wire::GATEWAY_PATH};
use anyhow::{Context, Result};
use tokio::runtime::Runtime;

use super::worker::{Fate, Kind, Worker};
use crate::controller::Enrolled;

/// Workers that do what rollouts say.
#[derive(Debug)]
pub struct Crew {
    fates: Vec<Arc<Fate>>,
    _runtime: Runtime,
}

impl Crew {
    /// Starts one for each node and its token, against the controller at `url`, e.g.
    /// `http://127.0.0.1:3305`.
    pub fn start(url: &str, nodes: impl IntoIterator<Item = (NodeId, String)>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let host = url.strip_prefix("http://").context("the controller does not speak plain HTTP")?;
        let host = host.trim_end_matches('/');
        let (address, endpoint) =
            (host.parse::<SocketAddr>()?, format!("ws://{host}{GATEWAY_PATH}").parse()?);
        let start = |(node_id, token): (NodeId, String)| {
            let fate = Arc::<Fate>::default();
            let (endpoint, source) = (Clone::clone(&endpoint), Ipv4Addr::LOCALHOST);
            let node = Enrolled { node_id, token };
            let worker = Worker { address, source, endpoint, node, kind: Kind::Managed, fate: fate.clone() };
            runtime.spawn(worker.run());
            fate
        };
        let fates = nodes.into_iter().map(start).collect();
        Ok(Self { fates, _runtime: runtime })
    }

    /// The next version works on none of them.
    pub fn spoil(&self) {
        self.fates.iter().for_each(|fate| fate.spoilt.store(true, Ordering::SeqCst));
    }
}
