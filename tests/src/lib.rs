//! What whole-system tests and the demo stand on: the built binaries, a controller and a worker as
//! ordinary processes, a misbehaving release server, and the lab, where machines boot real systemd.
//! Everything here is synchronous: the programs under test run in processes of their own, and a
//! test reads from top to bottom.

pub mod artifacts;
#[expect(dead_code, reason = "the controller's tests do more with a server")]
#[path = "../../controller-stub/tests/controller/cluster.rs"]
mod cluster;
pub mod controller;
pub mod database;
pub mod lab;
mod process;
pub mod proxy;
pub mod publisher;
pub mod relay;
pub mod release_folder;
pub mod release_server;
pub mod storm;
pub mod wait;
pub mod worker;
