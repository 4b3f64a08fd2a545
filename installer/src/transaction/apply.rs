//! Does what was planned, step by step: the way back is written down before each effect, and the
//! proof comes last. Undoes nothing itself, and decides neither what is done nor in which order.

use tokio::time::Instant;

use crate::{
    controller::online::Snapshot,
    failure::Failure,
    request::{Interrupt, unless},
    transaction::{
        checkpoint::{Checkpoint, Point},
        journal::{Journal, copies::Copies},
        plan::Plan,
        proof::Proof,
        undo::record::Undo,
        work::{Place, Timing, Work},
    },
};

/// What came of a plan.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) timings: Vec<Timing>,
    /// How the worker was when it was online, where that was to be proven.
    pub(crate) worker: Option<Snapshot>,
}

/// Why an installation did not come to its end, and at which step; at none if it had not begun.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) step: Option<&'static str>,
    pub(crate) failure: Failure,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self { step: None, failure }
    }
}

/// Applies `plan` up to the first step that fails or is interrupted.
pub(crate) async fn apply(
    plan: &Plan,
    work: &Work<'_>,
    journal: &mut Journal,
    checkpoint: &dyn Checkpoint,
    interrupt: &mut Interrupt<'_>,
) -> Result<Applied, Stopped> {
    let total = plan.names().count() as u64;
    let mut run = Run { work, journal, checkpoint, interrupt, timings: Vec::new(), total };
    for step in &plan.steps {
        let undo = |copies: &mut Copies| step.way_back(work.host, copies);
        let effect = async |place| step.apply(work, place).await;
        run.carry_out(step.name(), &step.summary(), undo, effect).await?;
    }
    let worker = match &plan.proof {
        Some(proof) => {
            let effect = async |_| proof.prove(work.host).await;
            Some(run.carry_out(Proof::NAME, Proof::SUMMARY, |_| Ok(Vec::new()), effect).await?)
        }
        None => None,
    };
    let complete = run.checkpoint.reached(Point::Complete).await;
    complete.map_err(|failure| Stopped { step: plan.names().last(), failure })?;
    Ok(Applied { timings: run.timings, worker })
}

/// An installation under way.
struct Run<'a, 'i> {
    work: &'a Work<'a>,
    journal: &'a mut Journal,
    checkpoint: &'a dyn Checkpoint,
    interrupt: &'a mut Interrupt<'i>,
    timings: Vec<Timing>,
    total: u64,
}

impl Run<'_, '_> {
    /// Carries one step out: its way back on disk, its effect, its end on disk.
    async fn carry_out<T>(
        &mut self,
        step: &'static str,
        summary: &str,
        undo: impl FnOnce(&mut Copies) -> Result<Vec<Undo>, Failure>,
        effect: impl AsyncFnOnce(Place) -> Result<T, Failure>,
    ) -> Result<T, Stopped> {
        let began = Instant::now();
        let place = Place { step, number: self.timings.len() as u64, total: self.total };
        self.work.console.say(&format!("{step}: {summary}"));
        self.work.progress(place, 0, 1);
        let (journal, checkpoint) = (&mut *self.journal, self.checkpoint);
        let done = async {
            let undo = undo(journal.copies())?;
            journal.intend(step, undo)?;
            checkpoint.reached(Point::Intended(step)).await?;
            let outcome = effect(place).await?;
            checkpoint.reached(Point::Applied(step)).await?;
            journal.done(step)?;
            checkpoint.reached(Point::Done(step)).await?;
            Ok(outcome)
        };
        let stopped = |failure| Stopped { step: Some(step), failure };
        let outcome = unless(self.interrupt, done).await.map_err(stopped)?;
        let took = began.elapsed();
        tracing::info!(step, ?took, "done");
        self.timings.push(Timing { step, took });
        Ok(outcome)
    }
}
