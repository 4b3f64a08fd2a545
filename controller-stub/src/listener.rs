//! The listening socket: takes connections, makes them TLS where that is served, and hands their requests to the router. It decides how
//! long a peer may take for a handshake or a request's head, and how many may be at it; what is served is the router's business, and
//! a WebSocket, once upgraded, is its own task's.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::ConnectInfo, response::Response};
use hyper::{
    Request,
    body::Incoming,
    server::conn::{http1, http2},
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How patient the listener is. The defaults are the product's; tests shorten them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// For TLS's handshake, from the connection's begin.
    pub(crate) handshake: Duration,
    /// For the head of a request, from the connection's begin or the answer before.
    pub(crate) head: Duration,
    /// Handshakes at the same time. More connections wait in the kernel's queue.
    pub(crate) handshakes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { handshake: Duration::from_secs(10), head: Duration::from_secs(10), handshakes: 512 }
    }
}

/// What the kernel keeps for us while a whole fleet comes back at once.
const BACKLOG: u32 = 4096;

/// The largest head of a request, in bytes; a larger one is answered with 431. A token has about one KiB.
const MAX_HEAD_BYTES: u32 = 16 * 1024;

/// HTTP/2 streams of one connection at the same time.
const MAX_STREAMS: u32 = 32;

/// An HTTP/2 connection is asked for a sign of life as often as this.
const PING_EVERY: Duration = Duration::from_secs(30);

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
    let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    let connections = TaskTracker::new();
    let mut exhausted = false;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_the_peer(&error) => continue,
            Err(error) => {
                if !std::mem::replace(&mut exhausted, true) {
                    tracing::error!(%error, "no connection can be taken; is the limit of open files too low?");
                }
                sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        if std::mem::take(&mut exhausted) {
            tracing::info!("connections are taken again");
        }
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection may be slow");
        }
        let (router, stop) = (router.clone(), stop.clone());
        let Some(acceptor) = &acceptor else {
            connections.spawn(serve_http1(stream, peer, router, limits.head, stop));
            continue;
        };
        // Held back here, the next ones wait in the kernel's queue and cost us nothing.
        let Some(Ok(permit)) = stop.run_until_cancelled(handshakes.clone().acquire_owned()).await else {
            break;
        };
        let handshake = acceptor.accept(stream);
        connections.spawn(async move {
            let shaken = tokio::select! {
                shaken = timeout(limits.handshake, handshake) => shaken,
                () = stop.cancelled() => return,
            };
            drop(permit);
            match shaken {
                Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                    serve_http2(stream, peer, router, stop).await;
                }
                Ok(Ok(stream)) => serve_http1(stream, peer, router, limits.head, stop).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
            }
        });
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

/// The router, for one peer. `began` is set by the first request.
fn service(
    router: Router,
    peer: SocketAddr,
    began: Arc<AtomicBool>,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> {
    service_fn(move |mut request: Request<Incoming>| {
        began.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(ConnectInfo(peer));
        TowerToHyperService::new(router.clone()).call(request)
    })
}

async fn serve_http1(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    head_timeout: Duration,
    stop: CancellationToken,
) {
    let began = Arc::new(AtomicBool::new(false));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(MAX_HEAD_BYTES as usize)
        .serve_connection(TokioIo::new(stream), service(router, peer, began.clone()))
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            if !began.load(Ordering::Relaxed) {
                // hyper would wait for a request that may never come.
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended");
    }
}

async fn serve_http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    stop: CancellationToken,
) {
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES)
        .keep_alive_interval(PING_EVERY)
        .serve_connection(TokioIo::new(stream), service(router, peer, Arc::default()));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended");
    }
}

#[cfg(test)]
mod tests;
