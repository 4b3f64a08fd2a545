//! Keeps memory small. What thousands of handshakes took lies between what their connections keep: the
//! allocator returns by itself only what lies behind all that is in use, and what is free in one of its arenas
//! serves no thread of another.

use std::{sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::interval};
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often it is looked whether many have come.
const LOOK_INTERVAL: Duration = Duration::from_secs(20);

/// So many workers that came make it worth while: a walk over all that is in use takes milliseconds.
const MANY: u64 = 500;

/// Has all threads allocate from one arena: what one of them has freed serves the next, whichever that is. To
/// be called before there is a second. What threads share so is mostly free of waiting: each has a cache of its
/// own before it.
#[cfg(target_env = "gnu")]
pub fn keep_together() {
    #[expect(unsafe_code, reason = "it takes two numbers, and changes what comes later alone")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Other allocators are as they are.
#[cfg(not(target_env = "gnu"))]
pub fn keep_together() {}

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
