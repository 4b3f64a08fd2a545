//! Tests that boot a machine.

mod bad_input;
mod footprint;
mod ground;
mod installs;
mod scenarios;
mod site;
mod tls;
