//! The node's tokens: where the installed one comes from, where those are kept that the controller gave
//! in its place, and which of them is used.

pub mod rotation;
pub mod source;
pub mod store;
