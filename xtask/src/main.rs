//! The project's commands. Each is a short list of other programs' commands, shown before it runs;
//! what they do is decided there.

mod ci;
mod deb;
mod demo;
mod load;
mod packages;
mod portable;
mod release;
mod screenshots;
mod step;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's commands
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the system at work: a controller, a node, and every event, until Ctrl-C
    Demo(demo::Arguments),
    /// Build what is shipped, for Debian 11 and everything newer: in target/portable/release (as root)
    Build,
    /// Build what is shipped, and make Debian packages of it: in target/portable/debian (as root)
    Deb,
    /// Build a release of the committed sources, and write what release servers hand out (as root)
    Release(Box<release::Arguments>),
    /// Install what the tests need, then run all of them
    Test(test::Arguments),
    /// Everything that must hold before a change is merged: format, lints, docs, audit, tests
    Ci(test::Arguments),
    /// Take pictures of the pages for the documentation, into docs/images
    Screenshots,
    /// Put a full load on what is shipped, and print the figures
    Load(load::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Build => portable::build().map(drop),
        Command::Deb => deb::build().map(drop),
        Command::Release(arguments) => release::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Ci(arguments) => ci::run(&arguments),
        Command::Screenshots => screenshots::run(),
        Command::Load(arguments) => load::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
