//! One connection: its handshake, its HTTP, and the moment when it must end. An upgraded connection is its own task's business.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Instant,
};

use axum::{Router, extract::ConnectInfo};
use hyper::{Request, Response, Version, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::{
    MAX_HEAD_BYTES, MAX_STREAMS, PING_INTERVAL,
    activity::{Activity, Patience},
    answer::Answer,
    budget::Charge,
    holder::Holder,
    seats::Seat,
    stream::Stream,
};

/// What all connections of a listener share.
pub(super) struct Server {
    http: auto::Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
    router: Router,
    patience: Patience,
    stop: CancellationToken,
}

/// What a connection is doing, for whoever reads and writes it.
pub(super) struct Link {
    activity: Mutex<Activity>,
    /// Gone after an upgrade.
    seat: Weak<Seat>,
}

/// A request, from its head to the last byte of its answer.
pub(crate) struct Visit {
    link: Arc<Link>,
    seat: Arc<Seat>,
    /// Whom the answer is charged to, once a token was accepted.
    payer: OnceLock<Holder>,
    answered: AtomicBool,
}

impl Link {
    /// Of no connection's place.
    #[cfg(test)]
    pub(super) fn detached() -> Self {
        Self { activity: Mutex::new(Activity::new(Instant::now())), seat: Weak::new() }
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn heard(&self, now: Instant) {
        if self.activity().heard(now)
            && let Some(seat) = self.seat.upgrade()
        {
            seat.speak();
        }
    }
}

impl Visit {
    fn begin(link: Arc<Link>, seat: Arc<Seat>, multiplexed: bool) -> Arc<Self> {
        let mut activity = link.activity();
        if activity.began(multiplexed) {
            seat.rouse();
        }
        drop(activity);
        Arc::new(Self { link, seat, payer: OnceLock::new(), answered: AtomicBool::new(false) })
    }

    /// Counts the connection and its answers for `holder`, whose token was accepted.
    pub(crate) fn assign(&self, holder: Holder) {
        self.seat.assign(holder.clone());
        let _ = self.payer.set(holder);
    }

    /// Whose token was accepted.
    pub(crate) fn payer(&self) -> Option<Holder> {
        self.payer.get().cloned()
    }

    pub(super) fn answering(&self, is_new: bool) {
        self.link.activity().answering(is_new, Instant::now());
        self.answered.fetch_or(is_new, Ordering::Relaxed);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut activity = self.link.activity();
        if activity.ended(self.answered.load(Ordering::Relaxed), Instant::now()) {
            self.seat.quieten();
        }
    }
}

impl Server {
    pub(super) fn new(
        tls: Option<TlsAcceptor>,
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
    pub(super) async fn serve(self: Arc<Self>, tcp: TcpStream, peer: SocketAddr, seat: Seat) {
        let seat = Arc::new(seat);
        let activity = Mutex::new(Activity::new(Instant::now()));
        let link = Arc::new(Link { activity, seat: Arc::downgrade(&seat) });
        let stream = Stream::new(tcp, link.clone(), self.patience.stall);
        let Some(acceptor) = &self.tls else { return self.serve_http(stream, peer, link, seat).await };
        let shaken = tokio::select! {
            shaken = timeout(self.patience.handshake, acceptor.accept(stream)) => shaken,
            () = self.stop.cancelled() => return,
            () = seat.evicted() => return,
        };
        match shaken {
            Ok(Ok(stream)) => {
                link.activity().shaken(Instant::now());
                self.serve_http(stream, peer, link, seat).await;
            }
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
        }
    }

    async fn serve_http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        link: Arc<Link>,
        seat: Arc<Seat>,
    ) {
        let service = service_fn(|mut request: Request<Incoming>| {
            let visit = Visit::begin(link.clone(), seat.clone(), request.version() == Version::HTTP_2);
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(visit.clone());
            let mut router = self.router.clone();
            async move {
                let mut response = router.call(request).await?;
                let charge = response.extensions_mut().remove::<Arc<Charge>>();
                Ok::<Response<Answer>, std::convert::Infallible>(
                    response.map(|body| Answer::new(body, visit, charge)),
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
                    link.activity().stop(Instant::now());
                    connection.as_mut().graceful_shutdown();
                    continue;
                }
                () = seat.evicted() => Err("another connection took its place".into()),
                end = self.within_deadlines(connection.as_mut(), &link) => end,
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
        link: &Link,
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
                let Some(deadline) = link.activity().deadline(&self.patience) else { return Poll::Pending };
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
