//! The way back: `record` says what is to be put back, `run` puts it back.

pub(crate) mod record;
pub(crate) mod run;
