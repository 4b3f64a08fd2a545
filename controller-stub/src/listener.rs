//! The listening socket: takes connections as fast as they come, and gives each a slot for as long as it
//! keeps to its deadlines. What is served is the router's business.

pub(crate) mod activity;
mod answer;
pub(crate) mod budget;
mod connection;
pub(crate) mod holder;
mod in_flight;
mod slots;
mod stream;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpSocket},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use activity::Patience;
use connection::Server;
use holder::Holder;
pub(crate) use in_flight::InFlight;
use slots::Slots;
pub(crate) use stream::{Transport, detach};

/// How many connections there may be, and how long they may take. Workers' sockets are not among them.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) patience: Patience,
    /// Connections in all.
    pub(crate) connections: usize,
    /// Of one site without an accepted token, one organisation or one node.
    pub(crate) per_holder: usize,
    /// These may have as many as there are.
    pub(crate) proxies: Vec<IpNet>,
}

impl Limits {
    /// Room for so many connections.
    pub(crate) fn new(connections: usize, proxies: Vec<IpNet>) -> Self {
        Self { patience: Patience::default(), connections, per_holder: (connections / 4).max(16), proxies }
    }
}

/// What the kernel keeps for us while a whole fleet comes back at once.
const BACKLOG: u32 = 4096;

/// The largest head of a request, in bytes; a larger one is answered with 431. A token has about one KiB.
const MAX_HEAD_BYTES: u32 = 16 * 1024;

/// HTTP/2 streams of one connection at the same time.
const MAX_STREAMS: u32 = 32;

/// Between two signs of life that an HTTP/2 connection is asked for.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Without file descriptors nothing is to be had by asking again at once.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(200);

/// Takes a port.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stop`, and then until the requests that are under way have been answered.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<ServerConfig>,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let server = Arc::new(Server::new(tls.map(Arc::new), router, limits.patience, stop.clone()));
    let slots = Slots::new(limits.connections, limits.per_holder);
    let connections = TaskTracker::new();
    let mut exhausted = false;
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_the_peer(&error) => continue,
            Err(error) => {
                if !std::mem::replace(&mut exhausted, true) {
                    tracing::error!(%error, "no connection can be taken; is the limit of open files too low?");
                }
                slots.relieve();
                sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        if std::mem::take(&mut exhausted) {
            tracing::info!("connections are taken again");
        }
        let Some(slot) = slots.take(Holder::at(peer.ip(), &limits.proxies)) else {
            metrics::counter!("aio_connections_refused_total").increment(1);
            tracing::debug!(%peer, "a connection was refused: all slots are busy");
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection may be slow");
        }
        connections.spawn(server.clone().serve(stream, peer, slot));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Whether the connection is at fault, and not this process.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests;
