//! The host crate against what speaks a real protocol: NVML's C interface, as the fake library has it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may end by a panic")]

mod nvml;
