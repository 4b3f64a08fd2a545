//! The command line of an installation, for `aio-installer` and `aio-worker` alike: one file per
//! command, and how answers look.

mod answer;
mod arguments;
mod bundle;
pub mod command_line;
mod doctor;
mod install;
mod present;
mod this_machine;
mod uninstall;
mod updater;

pub use self::{
    answer::{Running, parse, print, print_part},
    bundle::{BundleArgs, run_bundle},
    doctor::{DoctorArgs, examine},
    install::{InstallArgs, run_install},
    present::{Output, print_failure},
    uninstall::{UninstallArgs, run_uninstall},
    updater::{UpdaterArgs, run_updater},
};
pub use crate::failure::Failure;
