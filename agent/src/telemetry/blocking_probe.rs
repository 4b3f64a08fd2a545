//! A question that may block: asked off the loop, at most one at a time, and never waited for
//! beyond a deadline. One that hangs keeps its thread and is not asked a second time until it has
//! answered.

use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};

pub(super) struct BlockingProbe<P, T> {
    question: fn(&mut P) -> T,
    state: State<P, T>,
}

enum State<P, T> {
    Free(P),
    Asked(JoinHandle<(P, T)>),
    /// The question panicked and took the probe with it: nothing will be known any more, and
    /// everything else goes on.
    Broken,
}

impl<P: Send + 'static, T: Send + 'static> BlockingProbe<P, T> {
    pub(super) fn new(probe: P, question: fn(&mut P) -> T) -> Self {
        Self { question, state: State::Free(probe) }
    }

    /// The answer, or nothing if it does not come in time.
    pub(super) async fn ask(&mut self, patience: Duration) -> Option<T> {
        let question = self.question;
        let mut asked = match std::mem::replace(&mut self.state, State::Broken) {
            State::Free(mut probe) => spawn_blocking(move || {
                let answer = question(&mut probe);
                (probe, answer)
            }),
            State::Asked(asked) => asked,
            State::Broken => return None,
        };
        match tokio::time::timeout(patience, &mut asked).await {
            Ok(Ok((probe, answer))) => {
                self.state = State::Free(probe);
                Some(answer)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "a probe of this machine broke; its numbers stay as they were");
                None
            }
            Err(_) => {
                self.state = State::Asked(asked);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_question_that_hangs_is_asked_once_and_answers_late() {
        let (release, held) = mpsc::channel::<u32>();
        let mut probe = BlockingProbe::new(held, |held| held.recv().unwrap_or(0));
        assert_eq!(probe.ask(SOON).await, None);
        assert_eq!(probe.ask(SOON).await, None);
        release.send(7).unwrap();
        assert_eq!(probe.ask(LONG).await, Some(7));
        release.send(8).unwrap();
        assert_eq!(probe.ask(LONG).await, Some(8));
    }

    #[tokio::test]
    async fn a_question_that_panics_is_not_asked_again() {
        let mut probe: BlockingProbe<(), u32> = BlockingProbe::new((), |()| panic!("broken on purpose"));
        assert_eq!(probe.ask(LONG).await, None);
        assert_eq!(probe.ask(LONG).await, None);
    }
}
