//! The whole installer against a controller, a release server, a service manager and a daemon in
//! this process, under a root of its own.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the modules of one test program"
)]

mod adoption;
mod aiwm;
mod bad_input;
mod binary;
mod bundle;
mod crash;
mod doctor;
mod package;
mod proxy;
mod server;
mod success;
mod undelivered;
mod uninstall;
mod updates;
mod world;
