//! Does what was planned, step by step: the way back is written down before each effect. Undoes nothing itself, and decides neither what
//! is done nor in which order.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    time::Duration,
};

use reqwest::Client;
use tokio::time::Instant;

use crate::{
    console::Console, failure::Failure, install::Host, journal::Journal, online::Snapshot, report::Reporter,
    step::Step,
};

/// A moment at which a machine may lose power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point<'a> {
    /// The step's way back is on disk; its effect has not begun.
    Intended(&'a str),
    /// The effect is there; nothing says so yet.
    Applied(&'a str),
    /// The step is recorded as done.
    Done(&'a str),
    /// The step is undone.
    Undone(&'a str),
    /// Everything is done and nothing is committed yet.
    Complete,
}

/// Hears of every such moment, and may fail there: how tests prove that an installation survives it.
pub trait Checkpoint {
    /// The installation has come to `point`, and goes on when this returns.
    fn reached<'a>(&'a self, point: Point<'a>) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;
}

/// Nothing ever happens.
#[derive(Debug, Clone, Copy)]
pub struct Uneventful;

impl Checkpoint for Uneventful {
    fn reached<'a>(&'a self, _: Point<'a>) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What steps work with.
pub(crate) struct Work<'a> {
    pub(crate) host: &'a Host,
    pub(crate) client: &'a Client,
    pub(crate) console: &'a Console,
    pub(crate) reporter: &'a Reporter,
    /// The step that is under way, for whoever ends the work early.
    pub(crate) at: &'a Cell<Option<&'static str>>,
    /// How many steps are done, and how many there are.
    number: Cell<u64>,
    total: u64,
    /// How the worker said it was, once it was online.
    pub(crate) online: RefCell<Option<Snapshot>>,
}

impl<'a> Work<'a> {
    /// Nothing of `total` steps is done yet.
    pub(crate) fn new(
        host: &'a Host,
        client: &'a Client,
        console: &'a Console,
        reporter: &'a Reporter,
        at: &'a Cell<Option<&'static str>>,
        total: usize,
    ) -> Self {
        let online = RefCell::new(None);
        Self { host, client, console, reporter, at, number: Cell::new(0), total: total as u64, online }
    }

    /// Says how far the present step is.
    pub(crate) fn progress(&self, done: u64, of: u64) {
        let Some(step) = self.at.get() else { return };
        let percent = done.saturating_mul(100) / of.max(1);
        self.reporter.progress(step, self.number.get() * 100 + percent, self.total * 100);
    }
}

/// How long a step took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// The step.
    pub step: &'static str,
    /// From its intent until it was done.
    pub took: Duration,
}

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
        let undo = step.way_back(work.host, journal)?;
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
