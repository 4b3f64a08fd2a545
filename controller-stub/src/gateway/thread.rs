//! The thread on which workers are heard. A heartbeat costs less to read than to wake a second
//! thread for, and here nothing that a user asks for is in its way. Does not decide what is done on
//! it.

use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Ends the thread, and what still runs on it, when it is dropped.
pub(crate) struct Thread {
    handle: Handle,
    /// Cancelled when the thread has ended, by a panic too.
    ended: CancellationToken,
    _end: DropGuard,
}

impl Thread {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = (CancellationToken::new(), CancellationToken::new());
        let (waiting, ending) = (end.clone(), ended.clone().drop_guard());
        thread::Builder::new().name("gateway".into()).spawn(move || {
            let _ending = ending;
            runtime.block_on(waiting.cancelled());
        })?;
        Ok(Self { handle, ended, _end: end.drop_guard() })
    }

    /// Runs tasks on it.
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        self.ended.clone().cancelled_owned()
    }
}
