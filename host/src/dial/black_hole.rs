//! An address that swallows packets, for tests: `localhost` at its first address, where nobody answers
//! and nothing is refused. A name whose IPv6 address is filtered on the way looks like this.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    time::timeout,
};

use crate::namespace::{self, Place};

/// A connection on the loopback takes microseconds. One that takes longer is never taken.
const PATIENCE: Duration = Duration::from_millis(300);

/// More connections than a listener without a queue holds.
const FILL: usize = 8;

/// Both addresses of `localhost`, as most machines have them.
const HOSTS: &str = "::1 localhost\n127.0.0.1 localhost\n";

/// `[::1]:port` as a listener whose queue is full: the kernel drops whoever else comes.
#[derive(Debug)]
pub struct BlackHole {
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

/// Whether the test of this name goes on here, where `localhost` is `[::1]` first. Else it ran
/// elsewhere, or cannot run on this machine.
pub fn is_here(test: &str) -> io::Result<bool> {
    Ok(namespace::run_inside(test, Some(HOSTS))? == Place::Inside)
}

impl BlackHole {
    /// Beside a server at `127.0.0.1:port`.
    pub async fn beside(port: u16) -> io::Result<Self> {
        let address = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        if lookup_host(("localhost", port)).await?.next() != Some(address) {
            return Err(io::Error::other("`localhost` is not [::1] first"));
        }
        let socket = TcpSocket::new_v6()?;
        socket.bind(address)?;
        let listener = socket.listen(0)?;
        let mut queue = vec![];
        for _ in 0..FILL {
            match timeout(PATIENCE, TcpStream::connect(address)).await {
                Ok(connected) => queue.push(connected?),
                Err(_) => return Ok(Self { _listener: listener, _queue: queue }),
            }
        }
        Err(io::Error::other(format!("{address} takes connections without end")))
    }
}
