//! One connection: its handshake, its HTTP, and the moment when it must end. An upgraded connection is its
//! own task's business.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Instant,
};

use axum::{Router, extract::ConnectInfo};
use hyper::{Request, Response, Version, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::{
    MAX_HEAD_BYTES, MAX_STREAMS, PING_INTERVAL,
    activity::Patience,
    answer::Answer,
    budget::Charge,
    in_flight::{InFlight, Shared},
    slots::Slot,
    stream::Stream,
};
use crate::tls::TlsStream;

/// What all connections of a listener share.
pub(super) struct Server {
    http: auto::Builder<TokioExecutor>,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    patience: Patience,
    stop: CancellationToken,
}

impl Server {
    pub(super) fn new(
        tls: Option<Arc<ServerConfig>>,
        router: Router,
        patience: Patience,
        stop: CancellationToken,
    ) -> Self {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            // `Activity` has the deadlines: this one would also end connections that are idle.
            .header_read_timeout(None)
            // Whoever has said all may still listen.
            .half_close(true)
            .max_buf_size(MAX_HEAD_BYTES as usize);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES)
            .keep_alive_interval(PING_INTERVAL);
        Self { http, tls, router, patience, stop }
    }

    /// Serves a connection until it ends or is upgraded.
    pub(super) async fn serve(self: Arc<Self>, tcp: TcpStream, peer: SocketAddr, slot: Slot) {
        let slot = Arc::new(slot);
        let shared = Arc::new(Shared::of(&slot));
        let stream = Stream::new(tcp, shared.clone(), self.patience.stall);
        let Some(config) = self.tls.clone() else { return self.serve_http(stream, peer, shared, slot).await };
        let shaken = tokio::select! {
            shaken = timeout(self.patience.handshake, TlsStream::accept(config, stream)) => shaken,
            () = self.stop.cancelled() => return,
            () = slot.evicted() => return,
        };
        match shaken {
            Ok(Ok(stream)) => {
                shared.activity().shaken(Instant::now());
                self.serve_http(stream, peer, shared, slot).await;
            }
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
        }
    }

    async fn serve_http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        shared: Arc<Shared>,
        slot: Arc<Slot>,
    ) {
        let service = service_fn(|mut request: Request<Incoming>| {
            let in_flight =
                InFlight::begin(shared.clone(), slot.clone(), request.version() == Version::HTTP_2);
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(in_flight.clone());
            let mut router = self.router.clone();
            async move {
                let mut response = router.call(request).await?;
                let charge = response.extensions_mut().remove::<Arc<Charge>>();
                Ok::<Response<Answer>, std::convert::Infallible>(
                    response.map(|body| Answer::new(body, in_flight, charge)),
                )
            }
        });
        let connection = self.http.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let mut stopping = false;
        loop {
            let end = tokio::select! {
                biased;
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    shared.activity().stop(Instant::now());
                    connection.as_mut().graceful_shutdown();
                    continue;
                }
                () = slot.evicted() => Err("another connection took its slot".into()),
                end = self.within_deadlines(connection.as_mut(), &shared) => end,
            };
            if let Err(error) = end {
                tracing::debug!(%peer, error = &*error, "a connection ended");
            }
            return;
        }
    }

    /// Drives a connection until it ends, or until `Activity` says that it must.
    async fn within_deadlines<E>(
        &self,
        mut connection: Pin<&mut impl Future<Output = Result<(), E>>>,
        shared: &Shared,
    ) -> Result<(), E>
    where
        E: From<io::Error>,
    {
        let mut timer = pin!(sleep_until(Instant::now().into()));
        poll_fn(|cx| {
            // Whatever moves a deadline also polls the connection.
            if let Poll::Ready(end) = connection.as_mut().poll(cx) {
                return Poll::Ready(end);
            }
            loop {
                let Some(deadline) = shared.activity().deadline(&self.patience) else { return Poll::Pending };
                if deadline <= Instant::now() {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut).into()));
                }
                if timer.is_elapsed() || deadline < timer.deadline().into_std() {
                    timer.as_mut().reset(deadline.into());
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }
}
