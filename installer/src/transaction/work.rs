//! What steps work with, and where they say how far they are.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use reqwest::Client;

use crate::{
    console::Console,
    controller::{online::Snapshot, report::Reporter},
    machine::host::Host,
};

/// What steps work with.
pub(crate) struct Work<'a> {
    pub(crate) host: &'a Host,
    pub(crate) client: &'a Client,
    pub(crate) console: &'a Console,
    pub(crate) reporter: &'a Reporter,
    /// The step that is under way, for whoever ends the work early.
    pub(crate) at: &'a Cell<Option<&'static str>>,
    /// How many steps are done, and how many there are.
    pub(super) number: Cell<u64>,
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
