//! What attackers know and have: an address to attack, one to come from, tokens of their own, and
//! connections that they hold.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use aio_protocol::ids::NodeId;
use anyhow::Result;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::attack::Attack;
use crate::controller::Enrolled;

/// An organisation with bad intentions.
pub(super) struct Enemy {
    pub user_token: String,
    /// Nodes that say as much of themselves as they may.
    pub loud: Vec<Enrolled>,
    /// Of the first one, the token was replaced.
    pub others: Vec<Enrolled>,
}

impl Enemy {
    /// Replaces the tokens of one of its nodes.
    pub(super) async fn another_token(&self, controller: SocketAddr, node: &NodeId) -> Result<String> {
        let url = format!("http://{controller}/nodes/{node}/regenerate-credentials");
        let request = reqwest::Client::builder().no_proxy().build()?.post(url).bearer_auth(&self.user_token);
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        Ok(answer["token"].as_str().unwrap_or_default().to_owned())
    }
}

pub(super) struct Target {
    pub address: SocketAddr,
    pub enemy: Enemy,
    source: AtomicU8,
    held: Mutex<Vec<TcpStream>>,
    did: Mutex<BTreeMap<String, u64>>,
}

impl Target {
    pub(super) fn new(address: SocketAddr, enemy: Enemy) -> Self {
        let (source, held, did) = (AtomicU8::new(0), Mutex::default(), Mutex::default());
        Self { address, enemy, source, held, did }
    }

    /// Each attack comes from an address of its own.
    pub(super) fn move_to_address_of(&self, attack: Attack) {
        self.source.store(100 + attack as u8, Relaxed);
    }

    fn source(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 0, self.source.load(Relaxed))
    }

    pub(super) async fn dial(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.source(), 0).into())?;
        // Little fits into it, so what is not read stays where it came from.
        socket.set_recv_buffer_size(4096)?;
        socket.connect(self.address).await
    }

    pub(super) fn http(&self) -> Result<reqwest::Client> {
        let builder = reqwest::Client::builder().no_proxy().local_address(Some(self.source().into()));
        Ok(builder.timeout(Duration::from_secs(10)).build()?)
    }

    /// Says `words` on a connection, and holds it without reading.
    pub(super) async fn hold(&self, words: &[u8]) -> io::Result<()> {
        let mut stream = self.dial().await?;
        stream.write_all(words).await?;
        lock(&self.held).push(stream);
        Ok(())
    }

    /// How many are held.
    pub(super) fn held(&self) -> usize {
        lock(&self.held).len()
    }

    /// Counts something that an attack did.
    pub(super) fn count(&self, what: impl Into<String>) {
        *lock(&self.did).entry(what.into()).or_default() += 1;
    }

    /// What was counted, from the beginning again.
    pub(super) fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut *lock(&self.did))
    }

    /// Sends one request on a connection of its own; says the status, or 0 when there is none.
    pub(super) async fn ask(&self, head: &str) -> u16 {
        let asked = async {
            let mut stream = self.dial().await?;
            stream.write_all(head.as_bytes()).await?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await?;
            Ok::<_, io::Error>(std::str::from_utf8(&answer[9..]).ok().and_then(|it| it.parse().ok()))
        };
        asked.await.ok().flatten().unwrap_or(0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
