//! The session with the controller: a pure machine, the socket that it drives, and the loop between them.

pub mod backoff;
mod clock_watch;
pub mod conversation;
pub(crate) mod driver;
pub mod machine;
pub mod rehearsal;
pub(crate) mod reporter;
pub mod send_queue;
pub mod setback;
pub mod socket;
pub mod suspend;
pub use trusted::Trusted;
mod trusted;
pub mod words;
