//! Tests that boot a machine.

mod adoption;
mod ansible;
mod bad_input;
mod bundles;
mod citizen;
mod clock;
mod cloud_init;
mod command_line;
mod crash;
mod environments;
mod faults;
mod footprint;
mod ground;
mod installs;
mod needrestart;
mod package;
mod portable;
mod sandbox;
mod scenarios;
mod session;
mod site;
mod small_deployment;
mod soak;
mod support_bundle;
mod tls;
mod undelivered;
