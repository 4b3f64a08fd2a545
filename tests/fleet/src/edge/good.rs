//! The good ones: workers with their heartbeats, one user, and workers that come and go. What they
//! notice is counted.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use aio_protocol::wire::SUBPROTOCOL;
use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::ClientRequestBuilder, http::Uri},
};

use crate::{
    controller::{Controller, Enrolled},
    words::Words,
};

/// Between two heartbeats of a worker, and two arrivals of one that comes and goes.
const PACE: Duration = Duration::from_secs(1);
const ARRIVALS: Duration = Duration::from_millis(150);

/// Between two requests of the user.
const REQUESTS: Duration = Duration::from_millis(40);

/// Whatever takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the good ones noticed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Noticed {
    /// From when a heartbeat was due to the pong behind it.
    pub worst_beat: Duration,
    pub beats: u64,
    /// Workers' connections that ended.
    pub lost: u64,
    /// The user's, in order.
    pub requests: Vec<Duration>,
    pub failed_requests: u64,
    /// Of workers that come and go.
    pub arrivals: u64,
    pub refused_arrivals: u64,
}

impl Noticed {
    /// The time within which this share of the user's requests was answered.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let index = (self.requests.len() as f64 * share) as usize;
        self.requests.get(index.min(self.requests.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

#[derive(Default)]
struct Notes(Mutex<Noticed>);

impl Notes {
    fn edit<T>(&self, edit: impl FnOnce(&mut Noticed) -> T) -> T {
        edit(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All good ones. Dropping it ends them.
pub(super) struct Good {
    notes: Arc<Notes>,
    _tasks: JoinSet<()>,
}

impl Good {
    pub(super) async fn start(
        controller: &Controller,
        workers: Vec<Enrolled>,
        comers: Vec<Enrolled>,
        seen: String,
    ) -> Result<Self> {
        let notes = Arc::new(Notes::default());
        let (mut tasks, endpoint, address) = (JoinSet::new(), controller.gateway()?, controller.address());
        let count = workers.len() as u64;
        for (node, source) in workers.into_iter().zip((2..10).cycle()) {
            let place =
                Place { address, source: Ipv4Addr::new(127, 0, 0, source), endpoint: endpoint.clone(), node };
            tasks.spawn(beat(place, notes.clone()));
            sleep(Duration::from_millis(2)).await;
        }
        for node in comers {
            let source = Ipv4Addr::new(127, 0, 0, 10);
            tasks.spawn(come_and_go(
                Place { address, source, endpoint: endpoint.clone(), node },
                notes.clone(),
            ));
        }
        let token = controller.user_token(crate::controller::ORGANISATION).await?;
        tasks.spawn(ask(format!("http://{address}"), token, seen, notes.clone()));
        let began = Instant::now();
        while notes.edit(|noticed| noticed.beats) < count {
            ensure!(began.elapsed() < Duration::from_secs(60), "the good workers cannot connect");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(Self { notes, _tasks: tasks })
    }

    /// What was noticed, from the beginning again.
    pub(super) fn take(&self) -> Noticed {
        let mut noticed = self.notes.edit(std::mem::take);
        noticed.requests.sort_unstable();
        noticed
    }
}

struct Place {
    address: SocketAddr,
    source: Ipv4Addr,
    endpoint: Uri,
    node: Enrolled,
}

impl Place {
    async fn dial(&self) -> Result<WebSocketStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.source, 0).into())?;
        let stream = timeout(PATIENCE, socket.connect(self.address)).await??;
        stream.set_nodelay(true)?;
        let request = ClientRequestBuilder::new(self.endpoint.clone())
            .with_sub_protocol(SUBPROTOCOL)
            .with_header("Authorization", format!("Bearer {}", self.node.token));
        Ok(timeout(PATIENCE, client_async(request, stream)).await??.0)
    }
}

/// A worker that stays connected.
async fn beat(place: Place, notes: Arc<Notes>) {
    let words = Words::new(place.node.node_id.clone(), 8);
    let mut was_connected = false;
    loop {
        if let Ok(mut socket) = place.dial().await {
            was_connected = true;
            if socket.send(Message::text(words.register())).await.is_ok() {
                let _ = beat_on(&mut socket, &words, &notes).await;
            }
        }
        if was_connected {
            notes.edit(|noticed| noticed.lost += 1);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn beat_on(socket: &mut WebSocketStream<TcpStream>, words: &Words, notes: &Notes) -> Result<()> {
    let mut due = Instant::now() + PACE.mul_f64(fastrand::f64());
    for seq in 1.. {
        while let Ok(frame) = tokio::time::timeout_at(due.into(), socket.next()).await {
            frame.context("closed")??;
        }
        socket.send(Message::text(words.heartbeat(seq))).await?;
        socket.send(Message::Ping(seq.to_be_bytes().to_vec().into())).await?;
        let pong = async {
            loop {
                if let Message::Pong(payload) = socket.next().await.context("closed")??
                    && payload[..] == seq.to_be_bytes()
                {
                    return Ok::<_, anyhow::Error>(());
                }
            }
        };
        let answered = timeout(PATIENCE, pong).await;
        let late = due.elapsed();
        notes.edit(|noticed| {
            noticed.beats += 1;
            noticed.worst_beat = noticed.worst_beat.max(late);
        });
        answered??;
        due += PACE;
    }
    Ok(())
}

/// A worker that connects, is greeted, and goes.
async fn come_and_go(place: Place, notes: Arc<Notes>) {
    loop {
        let greeted = async {
            let mut socket = place.dial().await?;
            timeout(PATIENCE, socket.next()).await?.context("closed")??;
            socket.close(None).await?;
            Ok::<_, anyhow::Error>(())
        };
        let refused = greeted.await.is_err();
        notes.edit(|noticed| {
            noticed.arrivals += 1;
            noticed.refused_arrivals += u64::from(refused);
        });
        sleep(ARRIVALS).await;
    }
}

/// A user who looks, and now and then changes something.
async fn ask(base: String, token: String, node: String, notes: Arc<Notes>) {
    let client =
        reqwest::Client::builder().no_proxy().local_address(Some(Ipv4Addr::new(127, 0, 0, 11).into()));
    let Ok(http) = client.timeout(PATIENCE).build() else { return };
    let mut due = Instant::now();
    for number in 0_u64.. {
        let request = match number % 4 {
            0 => http.get(format!("{base}/nodes?limit=20")),
            1 => http.get(format!("{base}/nodes/{node}")),
            2 => http.get(format!("{base}/healthz")),
            _ if number % 20 == 3 => http
                .post(format!("{base}/nodes"))
                .json(&serde_json::json!({"name": format!("good-{number}")})),
            _ => http.get(format!("{base}/nodes/{node}/transitions")),
        };
        let began = Instant::now();
        let answered = async {
            let answer = request.bearer_auth(&token).send().await?.error_for_status()?;
            answer.bytes().await
        };
        let failed = answered.await.is_err();
        notes.edit(|noticed| {
            noticed.requests.push(began.elapsed());
            noticed.failed_requests += u64::from(failed);
        });
        due = Instant::now().max(due + REQUESTS);
        sleep_until(due.into()).await;
    }
}
