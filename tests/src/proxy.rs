//! A proxy, as companies have them between their machines and the world: it opens tunnels to hosts
//! that only it knows, and keeps a list of what it was asked for.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};

/// A proxy that takes new connections until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    asked: Asked,
    dropped: Arc<AtomicBool>,
}

type Asked = Arc<Mutex<Vec<String>>>;

impl Proxy {
    /// Listens at `address`, and knows where `host` is: on this computer's loopback, at the port
    /// that is asked for.
    pub fn start(address: IpAddr, host: &'static str) -> Result<Self> {
        let listener =
            TcpListener::bind((address, 0)).with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let (asked, dropped) = (Asked::default(), Arc::new(AtomicBool::new(false)));
        let proxy = Self { address, asked: Arc::clone(&asked), dropped: Arc::clone(&dropped) };
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if dropped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                let asked = Arc::clone(&asked);
                std::thread::spawn(move || serve(&client, host, &asked).unwrap_or_default());
            }
        });
        Ok(proxy)
    }

    /// As `HTTPS_PROXY` takes it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The first line of every request so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn serve(mut client: &TcpStream, known: &str, asked: &Asked) -> io::Result<()> {
    let mut head = BufReader::new(client);
    let mut request = String::new();
    head.read_line(&mut request)?;
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(request.trim().to_owned());
    let mut line = String::new();
    // A client sends nothing more before the tunnel is open, so the buffer holds nothing of what
    // goes through it.
    while head.read_line(&mut line)? > 2 {
        line.clear();
    }
    let place = request.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let port = place
        .and_then(|place| place.rsplit_once(':'))
        .filter(|(host, _)| *host == known)
        .and_then(|(_, port)| port.parse::<u16>().ok());
    let Some(port) = port else {
        return client
            .write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let server = TcpStream::connect(("127.0.0.1", port))?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || carry(&from_client, &to_server));
    carry(&server, client);
    Ok(())
}

fn carry(mut from: &TcpStream, mut to: &TcpStream) {
    // However a direction ends, the other end is told.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn it_opens_a_tunnel_to_the_host_that_it_knows_and_to_no_other() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let proxy = Proxy::start([127, 0, 0, 1].into(), "known.example").unwrap();
        let ask = |place: String| {
            let mut client = TcpStream::connect(proxy.address).unwrap();
            client
                .write_all(format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n").as_bytes())
                .unwrap();
            let mut answer = [0; 12];
            client.read_exact(&mut answer).unwrap();
            (String::from_utf8(answer.into()).unwrap(), client)
        };
        assert_eq!(ask("other.example:80".to_owned()).0, "HTTP/1.1 502");
        let (answer, mut client) = ask(format!("known.example:{port}"));
        assert_eq!(answer, "HTTP/1.1 200");
        client.write_all(b"x").unwrap();
        let (mut served, _) = server.accept().unwrap();
        let mut byte = [0];
        served.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        assert_eq!(proxy.asked().len(), 2);
    }
}
