//! How the daemon takes part in updates: it looks at its controller's offer, waits for the right
//! moment, brings the release to the machine, and asks root, which believes none of it, to verify
//! and to switch. Nothing here executes anything, and nothing here writes where root installs.
//!
//! `machine` decides, and is pure; `offer`, `policy` and `window` are what it decides on. `memory`
//! is what outlives the process, `order` what an operator asks, `root` speaks with root, `download`
//! brings the files, and `errands` runs all of these beside the session. Where things lie is in `places`.

pub mod download;
pub mod errands;
pub mod machine;
pub mod memory;
pub mod offer;
pub mod order;
pub mod places;
pub mod policy;
pub mod root;
pub mod window;
