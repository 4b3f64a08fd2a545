//! An installation as a transaction: what is needed is planned, journalled, applied, and undone on
//! any failure.

pub(crate) mod apply;
pub(crate) mod checkpoint;
pub(crate) mod config_text;
pub(crate) mod journal;
pub(crate) mod plan;
pub(crate) mod proof;
pub(crate) mod step;
pub(crate) mod undo;
pub(crate) mod work;
