//! Tests that boot a machine.

mod adoption;
mod bad_input;
mod bundles;
mod command_line;
mod crash;
mod environments;
mod faults;
mod footprint;
mod ground;
mod installs;
mod package;
mod portable;
mod scenarios;
mod site;
mod support_bundle;
mod tls;
mod undelivered;
