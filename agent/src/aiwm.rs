//! What a node of AIWM does beside its session: it logs in, keeps its token fresh, and pushes metrics.
//! The session itself speaks AIWM's dialect by `session::conversation`.

pub mod account;
pub(crate) mod push;
