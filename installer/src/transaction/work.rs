//! What steps work with, and where they say how far they are.

use std::time::Duration;

use reqwest::Client;

use crate::{console::Console, controller::report::Reporter, machine::host::Host};

/// What steps work with.
pub(crate) struct Work<'a> {
    pub(crate) host: &'a Host,
    pub(crate) client: &'a Client,
    pub(crate) console: &'a Console,
    pub(crate) reporter: &'a Reporter,
}

/// Where in an installation a step stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The step's word.
    pub(crate) step: &'static str,
    /// How many steps come before it, and how many there are.
    pub(crate) number: u64,
    pub(crate) total: u64,
}

impl Work<'_> {
    /// Says that of the step at `place` this part is done.
    pub(crate) fn progress(&self, place: Place, done: u64, of: u64) {
        let percent = done.saturating_mul(100) / of.max(1);
        self.reporter.progress(place.step, place.number * 100 + percent, place.total * 100);
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
