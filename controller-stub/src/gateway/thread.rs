//! The thread on which workers are heard. A heartbeat costs less to read than to wake a second
//! thread for, and here nothing that a user asks for is in its way. Where hundreds are heard each second,
//! the thread lets some come before it wakes up again. Does not decide what is done on it.

use std::{
    io,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Workers wait so much longer for an answer while the thread is busy, and one wake-up is for all that came
/// meanwhile: to wake up costs twice what it takes to read a heartbeat.
const NAP: Duration = Duration::from_millis(5);

/// Over this time it is counted how often the thread wakes up.
const COUNTED: Duration = Duration::from_millis(100);

/// Wake-ups in that time from which on the thread naps, and as long as it goes on doing so: a nap each.
const OFTEN: u32 = 30;
const STILL_OFTEN: u32 = 12;

/// Ends the thread, and what still runs on it, when it is dropped.
pub(crate) struct Thread {
    handle: Handle,
    /// Cancelled when the thread has ended, by a panic too.
    ended: CancellationToken,
    _end: DropGuard,
}

impl Thread {
    pub(crate) fn start() -> io::Result<Self> {
        let rhythm = Mutex::new(Rhythm::new(Instant::now()));
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(move || {
                let naps = rhythm.lock().unwrap_or_else(PoisonError::into_inner).goes_idle(Instant::now());
                if naps {
                    thread::sleep(NAP);
                }
            })
            .build()?;
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

/// How often the thread has woken up lately. Pure.
struct Rhythm {
    since: Instant,
    count: u32,
    naps: bool,
}

impl Rhythm {
    fn new(now: Instant) -> Self {
        Self { since: now, count: 0, naps: false }
    }

    /// Counts that the thread has nothing to do any more; says whether it naps.
    fn goes_idle(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= COUNTED {
            let enough = if self.naps { STILL_OFTEN } else { OFTEN };
            *self = Self { since: now, count: 0, naps: self.count >= enough && elapsed < COUNTED * 2 };
        }
        self.count += 1;
        self.naps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wakes up at this pace for a second, and says how often it napped then.
    fn naps(rhythm: &mut Rhythm, now: &mut Instant, pace: Duration) -> u32 {
        let end = *now + Duration::from_secs(1);
        let mut naps = 0;
        while *now < end {
            let napped = rhythm.goes_idle(*now);
            naps += u32::from(napped);
            *now += if napped { pace.max(NAP) } else { pace };
        }
        naps
    }

    #[test]
    fn it_naps_while_many_are_heard_and_at_no_other_time() {
        let mut now = Instant::now();
        let mut rhythm = Rhythm::new(now);
        for pace in [20_000, 50, 10, 5].map(Duration::from_millis) {
            assert_eq!(naps(&mut rhythm, &mut now, pace), 0, "{pace:?}");
        }
        let many = naps(&mut rhythm, &mut now, Duration::from_millis(1));
        assert!((150..=200).contains(&many), "{many}");
        let fewer = naps(&mut rhythm, &mut now, Duration::from_millis(7));
        assert!(fewer > 130, "{fewer}: it goes on");
        naps(&mut rhythm, &mut now, Duration::from_millis(20));
        for pace in [20, 50, 20_000].map(Duration::from_millis) {
            assert_eq!(naps(&mut rhythm, &mut now, pace), 0, "{pace:?}");
        }
    }
}
