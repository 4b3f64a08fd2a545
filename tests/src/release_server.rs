//! A release server that serves one file as badly as a test asks for.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};

/// How the server answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// With the file.
    #[default]
    Honest,
    /// With this status and a short body.
    Status(u16),
    /// With the file's length and half of the file; then it closes.
    Truncated,
    /// With the file, and then with more bytes for ever.
    Endless,
    /// With one byte more than the file has.
    Longer,
    /// With the right length and one other byte in the middle.
    Altered,
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct ReleaseServer {
    address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl ReleaseServer {
    /// Serves `file` at every path, honestly.
    pub fn start(file: Vec<u8>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
        let address = listener.local_addr()?;
        let behaviour = Arc::new(Mutex::new(Behaviour::Honest));
        let (file, now) = (Arc::new(file), Arc::downgrade(&behaviour));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (Ok(connection), Some(now)) = (connection, now.upgrade()) else { return };
                let behaviour = *now.lock().unwrap_or_else(PoisonError::into_inner);
                let file = Arc::clone(&file);
                // A client that goes away in the middle is what some of the tests are about.
                std::thread::spawn(move || serve(&connection, &file, behaviour).unwrap_or_default());
            }
        });
        Ok(Self { address, behaviour })
    }

    /// Its address, as `RELEASE_BASE_URL` takes it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From the next request on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }
}

impl Drop for ReleaseServer {
    fn drop(&mut self) {
        // The thread looks up when somebody comes, finds that nobody owns it, and ends.
        self.behaviour = Arc::default();
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn serve(mut connection: &TcpStream, file: &[u8], behaviour: Behaviour) -> std::io::Result<()> {
    let mut request = BufReader::new(connection.try_clone()?.take(16 * 1024)).lines();
    while request.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let (head, tail) = file.split_at(file.len() / 2);
    let announce = |mut connection: &TcpStream, length: usize| {
        write!(connection, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")
    };
    match behaviour {
        Behaviour::Honest => {
            announce(connection, file.len())?;
            connection.write_all(file)?;
        }
        Behaviour::Status(status) => {
            write!(
                connection,
                "HTTP/1.1 {status} Told So\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbad\n"
            )?;
        }
        Behaviour::Truncated => {
            announce(connection, file.len())?;
            connection.write_all(head)?;
        }
        Behaviour::Endless => {
            write!(connection, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            connection.write_all(file)?;
            loop {
                connection.write_all(&[0; 64 * 1024])?;
            }
        }
        Behaviour::Longer => {
            announce(connection, file.len() + 1)?;
            connection.write_all(file)?;
            connection.write_all(&[0])?;
        }
        Behaviour::Altered => {
            announce(connection, file.len())?;
            connection.write_all(head)?;
            connection.write_all(&[!tail.first().copied().unwrap_or_default()])?;
            connection.write_all(tail.split_at(tail.len().min(1)).1)?;
        }
    }
    connection.shutdown(Shutdown::Write)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(server: &ReleaseServer) -> Vec<u8> {
        let mut connection = TcpStream::connect(server.address).unwrap();
        connection.write_all(b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        connection.take(1_000_000).read_to_end(&mut answer).unwrap();
        answer
    }

    #[test]
    fn each_behaviour_is_what_it_says() {
        let file: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let server = ReleaseServer::start(file.clone()).unwrap();
        assert!(fetch(&server).ends_with(&file));
        server.behave(Behaviour::Status(404));
        assert!(fetch(&server).starts_with(b"HTTP/1.1 404 "));
        server.behave(Behaviour::Truncated);
        let truncated = fetch(&server);
        assert!(truncated.ends_with(&file[..500]) && truncated.len() < 700);
        server.behave(Behaviour::Longer);
        assert!(fetch(&server).ends_with(&[&file[..], &[0]].concat()));
        server.behave(Behaviour::Altered);
        let altered = fetch(&server);
        let body = &altered[altered.len() - 1000..];
        assert_eq!(body.iter().zip(&file).filter(|(a, b)| a != b).count(), 1);
        server.behave(Behaviour::Endless);
        assert_eq!(fetch(&server).len(), 1_000_000);
    }
}
