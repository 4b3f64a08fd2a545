//! A network between a worker and its controller that a test can cut: bytes stop, and nobody is
//! told, as when a cable is pulled.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};

/// A relay that runs until it is dropped.
#[derive(Debug)]
pub struct Relay {
    listener: TcpListener,
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    dropped: Arc<AtomicBool>,
}

/// How soon a thread that waits for bytes sees that the relay was cut or dropped.
const LOOK_UP: Duration = Duration::from_millis(50);

impl Relay {
    /// Takes a free port, so that its address is known before the controller is started.
    pub fn bind() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, cut: Arc::default(), dropped: Arc::default() })
    }

    /// Its address, as `PUBLIC_URL` takes it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Begins to carry connections to `url`, which is a controller's or only an address.
    pub fn carry_to(&self, url: &str) -> Result<()> {
        let target: SocketAddr =
            url.trim_start_matches("http://").parse().with_context(|| format!("{url} is no address"))?;
        let listener = self.listener.try_clone()?;
        let (cut, dropped) = (Arc::clone(&self.cut), Arc::clone(&self.dropped));
        std::thread::spawn(move || {
            for near in listener.incoming() {
                if dropped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(near) = near else { continue };
                let Ok(far) = TcpStream::connect(target) else { continue };
                if near.set_nodelay(true).and(far.set_nodelay(true)).is_err() {
                    continue;
                }
                let (Ok(near2), Ok(far2)) = (near.try_clone(), far.try_clone()) else { continue };
                for (from, to) in [(near, far2), (far, near2)] {
                    let (cut, dropped) = (Arc::clone(&cut), Arc::clone(&dropped));
                    std::thread::spawn(move || carry(&from, &to, &cut, &dropped).unwrap_or_default());
                }
            }
        });
        Ok(())
    }

    /// From now on nothing arrives, in either direction, and no connection ends.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Bytes flow again.
    pub fn mend(&self) {
        self.cut.store(false, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn carry(
    mut from: &TcpStream,
    mut to: &TcpStream,
    cut: &AtomicBool,
    dropped: &AtomicBool,
) -> std::io::Result<()> {
    from.set_read_timeout(Some(LOOK_UP))?;
    let mut buffer = [0; 16 * 1024];
    while !dropped.load(Ordering::Relaxed) {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                while cut.load(Ordering::Relaxed) && !dropped.load(Ordering::Relaxed) {
                    std::thread::sleep(LOOK_UP);
                }
                to.write_all(buffer.split_at(length).0)?;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    to.shutdown(Shutdown::Write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_stops_the_bytes_and_mending_lets_them_flow_again() {
        let far = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay::bind().unwrap();
        relay.carry_to(&format!("http://{}", far.local_addr().unwrap())).unwrap();
        let mut near = TcpStream::connect(relay.address).unwrap();
        let (mut far, _) = far.accept().unwrap();
        let mut byte = [0];
        near.write_all(b"a").unwrap();
        far.read_exact(&mut byte).unwrap();
        relay.cut();
        far.set_read_timeout(Some(4 * LOOK_UP)).unwrap();
        near.write_all(b"b").unwrap();
        assert_eq!(far.read_exact(&mut byte).unwrap_err().kind(), ErrorKind::WouldBlock);
        relay.mend();
        far.set_read_timeout(None).unwrap();
        far.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"b");
    }
}
