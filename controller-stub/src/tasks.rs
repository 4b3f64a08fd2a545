//! The tasks that a server is made of: named, watched and ended together. One that ends before a stop, by a
//! panic above all, or whose turn takes longer than any healthy one, makes the whole server useless without a
//! sign: it is told, so that whoever started the server starts it again.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// No turn of a task takes longer, not even one that waits for the database again and again.
const LONGEST_TURN: Duration = Duration::from_secs(120);

/// The tasks of one server.
pub(crate) struct Tasks {
    running: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    pulses: Pulses,
    stop: CancellationToken,
}

/// Why a server cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("the task `{name}` has ended before the controller was stopped")]
pub struct TaskEnded {
    name: &'static str,
    #[source]
    panic: Option<JoinError>,
}

/// Whether every task gets on. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Pulses(Arc<Mutex<Vec<Pulse>>>);

/// Whether one task gets on: since when its turn lasts, if it has one. Waiting for something to do
/// is no turn.
#[derive(Clone)]
pub(crate) struct Pulse {
    name: &'static str,
    epoch: Instant,
    /// Milliseconds since `epoch`, and 0 for no turn.
    began: Arc<AtomicU64>,
}

/// A turn, until it is dropped.
pub(crate) struct TurnOfTask<'a>(&'a Pulse);

impl Tasks {
    /// No task yet; `stop` is what they all end with.
    pub(crate) fn new(pulses: Pulses, stop: CancellationToken) -> Self {
        Self { running: JoinSet::new(), names: HashMap::new(), pulses, stop }
    }

    pub(crate) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.running.spawn(task);
        self.names.insert(task.id(), name);
    }

    /// Starts a task that has turns.
    pub(crate) fn spawn_with_pulse<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: &'static str,
        task: impl FnOnce(Pulse) -> F,
    ) {
        let pulse = self.pulses.add(name);
        self.spawn(name, task(pulse));
    }

    /// Waits until a task ends before the stop, and says which. After the stop it waits for ever.
    pub(crate) async fn failed(&mut self) -> TaskEnded {
        loop {
            let ended = self.running.join_next_with_id().await;
            if self.stop.is_cancelled() || ended.is_none() {
                return std::future::pending().await;
            }
            let (id, panic) = match ended {
                Some(Ok((id, ()))) => (id, None),
                Some(Err(panic)) => (panic.id(), Some(panic)),
                None => continue,
            };
            let name = self.names.get(&id).copied().unwrap_or("unknown");
            return TaskEnded { name, panic };
        }
    }

    /// Waits until all have ended.
    pub(crate) async fn join(&mut self) {
        while self.running.join_next().await.is_some() {}
    }

    /// Leaves behind what has not ended.
    pub(crate) fn abort(&mut self) {
        self.running.abort_all();
    }
}

impl Pulses {
    /// One more task that has turns.
    pub(crate) fn add(&self, name: &'static str) -> Pulse {
        let pulse = Pulse { name, epoch: Instant::now(), began: Arc::default() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(pulse.clone());
        pulse
    }

    /// The name of a task whose turn lasts too long.
    pub(crate) fn stuck(&self, now: Instant) -> Option<&'static str> {
        let pulses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pulses.iter().find(|pulse| pulse.lasts(now) > LONGEST_TURN).map(|pulse| pulse.name)
    }
}

impl Pulse {
    /// Begins a turn.
    pub(crate) fn turn(&self) -> TurnOfTask<'_> {
        let began = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.began.store(began, Ordering::Relaxed);
        TurnOfTask(self)
    }

    fn lasts(&self, now: Instant) -> Duration {
        match self.began.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            began => now.saturating_duration_since(self.epoch + Duration::from_millis(began)),
        }
    }
}

impl Drop for TurnOfTask<'_> {
    fn drop(&mut self) {
        self.0.began.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks() -> (Tasks, CancellationToken) {
        let stop = CancellationToken::new();
        (Tasks::new(Pulses::default(), stop.clone()), stop)
    }

    #[tokio::test]
    async fn a_task_that_panics_or_returns_before_the_stop_is_told_by_its_name() {
        let (mut tasks, stop) = tasks();
        tasks.spawn("steady", stop.clone().cancelled_owned());
        tasks.spawn("brittle", async { panic!("on purpose") });
        let ended = tasks.failed().await;
        assert_eq!((ended.name, ended.panic.is_some()), ("brittle", true));
        tasks.spawn("brief", async {});
        let ended = tasks.failed().await;
        assert_eq!((ended.name, ended.panic.is_some()), ("brief", false));
        stop.cancel();
        tasks.join().await;
    }

    #[tokio::test]
    async fn what_ends_after_the_stop_is_no_failure() {
        let (mut tasks, stop) = tasks();
        tasks.spawn("steady", stop.clone().cancelled_owned());
        stop.cancel();
        assert!(tokio::time::timeout(Duration::from_millis(50), tasks.failed()).await.is_err());
    }

    #[test]
    fn a_turn_that_does_not_end_is_told_and_waiting_is_not() {
        let pulses = Pulses::default();
        let (idle, busy) = (pulses.add("idle"), pulses.add("busy"));
        let later = Instant::now() + LONGEST_TURN * 2;
        drop(idle.turn());
        assert_eq!(pulses.stuck(later), None);
        let turn = busy.turn();
        assert_eq!(pulses.stuck(Instant::now()), None);
        assert_eq!(pulses.stuck(later), Some("busy"));
        drop(turn);
        assert_eq!(pulses.stuck(later), None);
    }
}
