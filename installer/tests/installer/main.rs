//! The whole installer against a controller, a release server, a service manager and a daemon in this process, under a root of its own.

#![allow(unreachable_pub, reason = "the modules of one test program")]

mod bad_input;
mod binary;
mod crash;
mod server;
mod success;
mod world;
mod zz;
