//! The machine behind small traits: systemd over D-Bus, GPUs through NVML, host facts, durable
//! files, and where things lie. Decides nothing about installations or sessions; it does and
//! reports.

pub mod cgroups;
pub mod config;
pub mod dial;
pub mod facts;
pub mod files;
pub mod gpu;
pub mod layout;
#[cfg(any(test, feature = "fakes"))]
pub mod namespace;
pub mod process;
pub mod proxy;
pub mod systemd;
pub mod tls;
pub mod token;
