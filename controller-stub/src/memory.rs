//! Gives memory back. What thousands of handshakes took lies between what their connections keep, and the
//! allocator returns by itself only what lies behind all that is in use.

use std::{sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::interval};
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often it is looked whether many have come.
const LOOK_INTERVAL: Duration = Duration::from_secs(20);

/// So many workers that came make it worth while: a walk over all that is in use takes milliseconds.
const MANY: u64 = 500;

/// Gives back what is free, once many workers have come, until `stop`.
pub(crate) async fn run(app: Arc<App>, stop: CancellationToken) {
    let mut look = interval(LOOK_INTERVAL);
    let mut given_back_at = 0;
    while stop.run_until_cancelled(look.tick()).await.is_some() {
        let entered = app.registry.entered();
        if entered - given_back_at >= MANY {
            given_back_at = entered;
            let _ = spawn_blocking(give_back).await;
        }
    }
}

/// Returns free pages to the system, wherever they lie.
#[cfg(target_env = "gnu")]
fn give_back() {
    #[expect(unsafe_code, reason = "it takes a number, and touches nothing but what is free")]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn give_back() {}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_what_is_kept_goes_back() {
        const SIZE: usize = 1024;
        let resident = || {
            let me = procfs::process::Process::myself().unwrap();
            me.statm().unwrap().resident * procfs::page_size()
        };
        let mut all: Vec<Box<[u8]>> = (0..65_536).map(|_| vec![1; SIZE].into()).collect();
        // A page stays where something in it is kept.
        let mut count = 0;
        all.retain(|_| {
            count += 1;
            count % 64 == 0
        });
        let before = resident();
        give_back();
        let after = resident();
        assert!(before - after > 40 * 1024 * 1024, "{before} {after}");
        assert_eq!(all.len(), 1024);
    }
}
