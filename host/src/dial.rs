//! Connections over TCP to a host by name, after RFC 8305 ("Happy Eyeballs"): addresses of both families
//! in turn, each attempt a little after the one before, and the first that succeeds is taken. So an
//! address that swallows packets delays a connection and never prevents it. The installer's HTTP client
//! does the same by itself. Sets no deadline for the whole; TLS and proxies are others' business.

#[cfg(any(test, feature = "fakes"))]
pub mod black_hole;

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tower_service::Service;

/// From one attempt to the next while none has ended: "Connection Attempt Delay" of RFC 8305.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Whether `host`, as URLs write it, is this very machine by its name or address.
pub fn is_this_machine(host: &str) -> bool {
    let host = without_brackets(host);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// A connection to `host`, a name or an address as URLs write it. Small writes are sent at once.
pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = lookup_host((without_brackets(host), port)).await?;
    let stream = race(in_turn(addresses.collect()), TcpStream::connect).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn without_brackets(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The addresses with their families in turn, beginning with that of the first; the resolver has sorted
/// them within each family.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    first.reverse();
    second.reverse();
    let mut sorted = Vec::with_capacity(first.len().saturating_add(second.len()));
    while !first.is_empty() || !second.is_empty() {
        sorted.extend(first.pop());
        sorted.extend(second.pop());
    }
    sorted
}

/// The first attempt that succeeds. Where none does, the error of the first that failed.
async fn race<T, F: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    attempt: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = None;
    loop {
        attempts.extend(waiting.next().map(&attempt));
        if attempts.is_empty() {
            let nameless = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            return Err(failure.unwrap_or_else(nameless));
        }
        tokio::select! {
            Some(ended) = attempts.next() => match ended {
                Ok(connected) => return Ok(connected),
                Err(error) => failure = failure.or(Some(error)),
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if waiting.len() > 0 => {}
        }
    }
}

/// The same for clients that ask by URL, which must name its port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialer;

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        Box::pin(async move {
            let port = target.port_u16().unwrap_or(80);
            connect(target.host().unwrap_or_default(), port).await.map(TokioIo::new)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn this_machine_is_known_by_name_and_address_however_they_are_written() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "[::ffff:127.0.0.1]"]
        {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["", "localhost.example", "10.0.0.1", "[::]", "aiwm.example"] {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn families_take_turns() {
        let sorted =
            in_turn(["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1", "1.0.0.2:1"].map(address).to_vec());
        assert_eq!(sorted, ["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"].map(address));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_swallow_packets_delay_a_connection_and_do_not_prevent_it() {
        let began = Instant::now();
        let tried = Mutex::new(vec![]);
        let addresses = ["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1"].map(address).to_vec();
        let connected = race(addresses, |to| {
            tried.lock().unwrap().push((to, began.elapsed()));
            async move {
                match to.to_string().as_str() {
                    "[::1]:1" | "1.0.0.1:1" => std::future::pending().await,
                    "[::2]:1" => Err(io::ErrorKind::ConnectionRefused.into()),
                    _ => Ok(to),
                }
            }
        });
        assert_eq!(connected.await.unwrap(), address("1.0.0.2:1"));
        let moments: Vec<_> = tried.lock().unwrap().iter().map(|(_, at)| at.as_millis()).collect();
        // Behind one that was refused the next is tried at once.
        assert_eq!((moments[0], moments[1] / 10, moments[2] / 10), (0, 25, 50));
        assert_eq!(moments[3], moments[2]);
    }

    #[tokio::test]
    async fn a_name_whose_first_address_swallows_packets_is_reached_at_the_other() {
        let test = "dial::tests::a_name_whose_first_address_swallows_packets_is_reached_at_the_other";
        if !black_hole::is_here(test).unwrap() {
            return;
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let _hole = black_hole::BlackHole::beside(port).await.unwrap();
        let connected = tokio::time::timeout(Duration::from_secs(10), connect("localhost", port));
        let (connected, accepted) = tokio::join!(connected, listener.accept());
        assert_eq!(connected.unwrap().unwrap().local_addr().unwrap(), accepted.unwrap().1);
    }

    #[tokio::test]
    async fn where_nobody_answers_the_first_error_is_told() {
        let refuse = |to: SocketAddr| async move { Err::<(), _>(io::Error::other(to.to_string())) };
        let error = race(["1.0.0.1:1", "1.0.0.2:1"].map(address).to_vec(), refuse).await.unwrap_err();
        assert_eq!(error.to_string(), "1.0.0.1:1");
        assert_eq!(race(vec![], refuse).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_name_with_an_address_that_nobody_listens_on_is_reached_at_the_other() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // `localhost` is ::1 as well, where this port is closed.
        let (connected, accepted) = tokio::join!(connect("localhost", port), listener.accept());
        assert_eq!(connected.unwrap().local_addr().unwrap(), accepted.unwrap().1);
    }
}
