//! Does what was planned, step by step: the way back is written down before each effect. Undoes nothing itself, and decides neither what
//! is done nor in which order.

use tokio::time::Instant;

use crate::{
    failure::Failure,
    transaction::{
        checkpoint::{Checkpoint, Point},
        journal::Journal,
        step::Step,
        work::{Timing, Work},
    },
};

/// Applies `steps` in their order, up to the first that fails.
pub(crate) async fn apply(
    steps: &[Step],
    work: &Work<'_>,
    journal: &mut Journal,
    checkpoint: &dyn Checkpoint,
) -> Result<Vec<Timing>, Failure> {
    let mut timings = Vec::with_capacity(steps.len());
    for step in steps {
        let (name, began) = (step.name(), Instant::now());
        work.at.set(Some(name));
        work.console.say(&format!("{name}: {}", step.summary()));
        work.progress(0, 1);
        let undo = step.way_back(work.host, journal.copies())?;
        journal.intend(name, undo)?;
        checkpoint.reached(Point::Intended(name)).await?;
        step.apply(work).await?;
        checkpoint.reached(Point::Applied(name)).await?;
        journal.done(name)?;
        checkpoint.reached(Point::Done(name)).await?;
        let took = began.elapsed();
        tracing::info!(step = name, ?took, "done");
        timings.push(Timing { step: name, took });
        work.number.set(work.number.get() + 1);
    }
    checkpoint.reached(Point::Complete).await?;
    Ok(timings)
}
