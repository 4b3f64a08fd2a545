//! The read-only status socket: one line of JSON to whoever connects, and one at every change.
//! Serves and reads it. What stands in the lines is the session's business; nothing is ever read
//! from a client.

mod seats;

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use aio_host::layout::STATUS_SOCKET;
use aio_protocol::snapshot::WorkerSnapshot;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::watch,
    time::timeout,
};
use tracing::{debug, warn};

use seats::Seats;

/// Who does not take a line within this time is dropped.
const SLOWEST: Duration = Duration::from_secs(5);

/// The socket, bound and open to everybody on this machine. The file goes with it.
#[derive(Debug)]
pub struct StatusSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        // A file that stays is replaced by the next daemon, and answers nobody until then.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the socket in `folder`, which is made if it is missing. A file that an earlier daemon left
/// is replaced in one step.
pub fn bind(folder: &Path) -> io::Result<StatusSocket> {
    fs::create_dir_all(folder)?;
    let path = folder.join(STATUS_SOCKET);
    let fresh = folder.join(format!(".{STATUS_SOCKET}.{}", std::process::id()));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    // The unit's umask would leave it to the daemon's user alone.
    fs::set_permissions(&fresh, Permissions::from_mode(0o666))?;
    fs::rename(&fresh, &path)?;
    Ok(StatusSocket { listener, path })
}

impl StatusSocket {
    /// Serves for ever.
    pub async fn serve(self, snapshots: watch::Receiver<WorkerSnapshot>) {
        let seats = Seats::default();
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let Some(seat) = stream.peer_cred().ok().and_then(|peer| seats.take(peer.uid())) else {
                        debug!("a reader of the status socket is turned away: its user has enough of them");
                        continue;
                    };
                    let snapshots = snapshots.clone();
                    tokio::spawn(async move {
                        let _seat = seat;
                        if let Err(error) = tell(stream, snapshots).await {
                            debug!(%error, "a reader of the status socket is gone");
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: not a reason to spin.
                    warn!(%error, "the status socket took no connection");
                    tokio::time::sleep(SLOWEST).await;
                }
            }
        }
    }
}

async fn tell(mut stream: UnixStream, mut snapshots: watch::Receiver<WorkerSnapshot>) -> io::Result<()> {
    let (mut from, mut to) = stream.split();
    loop {
        let mut line = serde_json::to_vec(&*snapshots.borrow_and_update())?;
        line.push(b'\n');
        timeout(SLOWEST, to.write_all(&line)).await??;
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return Ok(()) },
            // Nothing is expected; it ends when the reader is gone.
            said = drain(&mut from) => return said,
        }
    }
}

async fn drain(from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<()> {
    let mut ignored = [0; 64];
    while from.read(&mut ignored).await? > 0 {}
    Ok(())
}

/// What the worker whose socket is in `folder` says of itself now.
pub async fn read(folder: &Path, patience: Duration) -> io::Result<WorkerSnapshot> {
    timeout(patience, async { StatusReader::open(folder, patience).await?.next(None).await }).await?
}

/// A connection to a worker's status socket: every line of it.
#[derive(Debug)]
pub struct StatusReader {
    stream: BufReader<UnixStream>,
}

impl StatusReader {
    /// Connects to the socket in `folder`.
    pub async fn open(folder: &Path, patience: Duration) -> io::Result<Self> {
        let stream = timeout(patience, UnixStream::connect(folder.join(STATUS_SOCKET))).await??;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// What the worker says next, for which there may be a bound; an error when it says no more.
    pub async fn next(&mut self, patience: Option<Duration>) -> io::Result<WorkerSnapshot> {
        let mut line = String::new();
        let reading = self.stream.read_line(&mut line);
        match patience {
            Some(patience) => timeout(patience, reading).await??,
            None => reading.await?,
        };
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}
