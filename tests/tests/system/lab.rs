//! Tests that boot a machine.

mod adoption;
mod bad_input;
mod faults;
mod footprint;
mod ground;
mod installs;
mod scenarios;
mod site;
mod tls;
