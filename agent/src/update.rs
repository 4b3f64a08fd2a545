//! How the daemon takes part in updates: it looks at its controller's offer, waits for the right
//! moment, brings the release to the machine, and asks root, which believes none of it, to verify
//! and to switch. Nothing here executes anything, and nothing here writes where root installs.
//!
//! `machine` decides, and is pure; `offer`, `policy` and `window` are what it decides on. `memory`
//! is what outlives the process, `root` speaks with root.

pub mod machine;
pub mod memory;
pub mod offer;
pub mod policy;
pub mod window;
