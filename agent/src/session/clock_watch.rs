//! Looks at the clocks of this machine: at once when the kernel says that one of them was moved (it
//! also says so when the machine wakes up), and now and then in case it does not. Logs a clock that
//! was set, once and with its size; says how long the machine slept. Decides nothing about the
//! session.

use std::{
    os::fd::OwnedFd,
    time::{Duration, SystemTime},
};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Interval, MissedTickBehavior, interval},
};
use tracing::{debug, info, warn};

use super::suspend::{Clocks, Setting};
use crate::tally::Tally;

/// How often the clocks are looked at without being told to.
const LOOK: Duration = Duration::from_secs(30);

/// Readings that are so close to each other are of one moment.
const MOMENT: Duration = Duration::from_millis(100);

/// A timer that never ends by itself: it is there for being cancelled when the clock is set.
const FOR_EVER: i64 = i64::MAX / 2_000_000_000;

/// Watches the clocks.
pub(crate) struct ClockWatch {
    alarm: Option<AsyncFd<OwnedFd>>,
    look: Interval,
    read: Box<dyn FnMut() -> Clocks + Send>,
    last: Clocks,
    settings: Tally,
}

impl ClockWatch {
    /// Watches this machine's clocks from now on. Needs the runtime.
    pub(crate) fn start() -> Self {
        let alarm = match alarm() {
            Ok(alarm) => Some(alarm),
            Err(error) => {
                debug!(%error, "the kernel does not tell when a clock is set; looking every {} s", LOOK.as_secs());
                None
            }
        };
        Self::with(alarm, Box::new(read))
    }

    fn with(alarm: Option<AsyncFd<OwnedFd>>, mut read: Box<dyn FnMut() -> Clocks + Send>) -> Self {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let last = read();
        Self { alarm, look, read, last, settings: Tally::default() }
    }

    /// Waits until the machine has slept and is awake again; for how long it slept. Nothing is lost
    /// when nobody waits meanwhile.
    pub(crate) async fn slept(&mut self) -> Duration {
        loop {
            tokio::select! {
                () = alarmed(self.alarm.as_ref()) => {}
                _ = self.look.tick() => {}
            }
            let now = (self.read)();
            let gap = now.since(self.last);
            self.last = now;
            if let Some(setting) = gap.set {
                self.tell(setting);
            }
            if let Some(slept) = gap.slept {
                info!(seconds = slept.as_secs(), "this machine slept");
                return slept;
            }
        }
    }

    fn tell(&mut self, setting: Setting) {
        let Some(times) = self.settings.count() else { return };
        let (seconds, direction) = match setting {
            Setting::Forward(by) => (by.as_secs(), "forward"),
            Setting::Back(by) => (by.as_secs(), "back"),
        };
        warn!(
            seconds,
            direction, times, "the clock of this machine was set; the session goes by another and goes on"
        );
    }
}

/// Waits until the kernel says that a clock was moved.
async fn alarmed(alarm: Option<&AsyncFd<OwnedFd>>) {
    let Some(alarm) = alarm else { return std::future::pending().await };
    match alarm.readable().await {
        Ok(mut ready) => {
            // The answer is ECANCELED, and taking it makes the timer ready for the next time.
            let answer = rustix::io::read(alarm.get_ref(), &mut [0; 8]);
            debug!(?answer, "the kernel says that a clock was set");
            ready.clear_ready();
        }
        // Only the look remains.
        Err(_) => std::future::pending().await,
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for descriptors that are not their owner's alone; this one is"
)]
fn alarm() -> std::io::Result<AsyncFd<OwnedFd>> {
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let at = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: FOR_EVER, tv_nsec: 0 },
    };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &at)?;
    AsyncFd::with_interest(timer, Interest::READABLE)
}

/// Reads the three at one moment. A process that stands still between two of them would tell of a
/// sleep that was none.
fn read() -> Clocks {
    let of = |id| {
        let time = clock_gettime(id);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
    };
    let once = || Clocks {
        awake: of(ClockId::Monotonic),
        passed: of(ClockId::Boottime),
        wall: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
    };
    let first = once();
    let took = of(ClockId::Monotonic).saturating_sub(first.awake);
    if took < MOMENT { first } else { once() }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::time::{Instant, advance, timeout};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Clocks that a test moves.
    fn moved_by_hand() -> (ClockWatch, Arc<Mutex<Clocks>>) {
        let start = Clocks { awake: HOUR, passed: HOUR, wall: HOUR };
        let clocks = Arc::new(Mutex::new(start));
        let shown = clocks.clone();
        (ClockWatch::with(None, Box::new(move || *shown.lock().unwrap())), clocks)
    }

    #[tokio::test]
    async fn this_machine_s_clocks_can_be_watched_and_say_nothing_while_only_time_passes() {
        assert!(alarm().is_ok(), "{:?}", alarm());
        let mut watch = ClockWatch::start();
        assert!(watch.alarm.is_some());
        let before = watch.last;
        assert!(timeout(Duration::from_millis(100), watch.slept()).await.is_err());
        assert!(watch.last.awake >= before.awake && watch.last.passed >= watch.last.awake);
        assert_eq!(read().since(before), Default::default());
    }

    #[tokio::test(start_paused = true)]
    async fn sleep_is_told_in_full_even_if_the_kernel_says_nothing() {
        let (mut watch, clocks) = moved_by_hand();
        assert!(timeout(LOOK * 3, watch.slept()).await.is_err());
        let began = Instant::now();
        let asleep = Duration::from_secs(777);
        {
            let mut clocks = clocks.lock().unwrap();
            (clocks.passed, clocks.wall) = (clocks.passed + asleep, clocks.wall + asleep);
        }
        assert_eq!(watch.slept().await, asleep);
        assert!(began.elapsed() <= LOOK);
        // And once.
        assert!(timeout(LOOK * 3, watch.slept()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_is_no_sleep() {
        let (mut watch, clocks) = moved_by_hand();
        clocks.lock().unwrap().wall += HOUR;
        assert!(timeout(LOOK * 3, watch.slept()).await.is_err());
        clocks.lock().unwrap().wall -= HOUR;
        advance(LOOK).await;
        assert!(timeout(LOOK * 3, watch.slept()).await.is_err());
        assert_eq!(watch.settings.clear(), 2, "it was seen");
    }
}
