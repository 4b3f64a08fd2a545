//! The moments of an installation at which a machine may lose power, and who hears of them. Decides
//! nothing: tests break an installation here.

use std::pin::Pin;

use crate::failure::Failure;

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

/// Hears of every such moment, and may fail there: how tests prove that an installation survives
/// it.
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
