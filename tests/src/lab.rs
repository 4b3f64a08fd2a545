//! The lab: machines that boot real systemd (own PID 1, D-Bus, journal, users) in a container of
//! `systemd-nspawn`, on a root file system made by `mmdebstrap`. They share the host's network, so
//! that a controller on 127.0.0.1 can be reached, unless a test is about networks.
//!
//! - `image` makes a root file system once and keeps it under `target/lab/<suite>/`.
//! - `ground` gives each machine a folder of its own under `target/lab/run/`, limits how many run at once,
//!   and clears away what a killed run left.
//! - `disk` is a machine's disk, where a test copies it.
//! - `machine` boots, reboots and ends a machine.
//! - `network` joins a machine that has a network of its own to this computer, well or badly.
//! - `inside` runs commands in it.
//! - `listing` tells what lies on its disk.
//!
//! What the lab cannot do here (no root, a tool that is not installed) is an error with the cure,
//! never a skipped test.

mod disk;
mod ground;
mod image;
mod inside;
mod listing;
mod machine;
mod network;

pub use inside::{Inside, Outcome};
pub use listing::{Entry, Listing};
pub use machine::Machine;
pub use network::{Badness, Ends, Line};
