//! The steps of an installation, one file each. A step's word is the same everywhere: its type (`WriteUnit`), its file, its log field and
//! its journal tag (`write_unit`). A step knows how to do one thing and how the machine gets back; `plan` decides which are needed.

mod await_online;
mod create_user;
mod declare_user;
mod enable_unit;
mod fetch_release;
mod link_command;
mod place_release;
mod reload_manager;
mod start_unit;
mod switch_release;
mod write_config;
mod write_token;
mod write_unit;

use std::path::Path;

use aio_host::files;

use crate::{apply::Work, failure::Failure, install::Host, journal::Journal, undo::Undo};

/// What every step can do.
trait Action {
    /// The step's word.
    const NAME: &'static str;

    /// What it does, on what: one line for a person.
    fn summary(&self) -> String;

    /// What the operator should know of it afterwards.
    fn note(&self) -> Option<String> {
        None
    }

    /// How the machine gets back, in the order in which it is to be done, whatever part of the effect has come about. Called before it.
    fn way_back(&self, host: &Host, journal: &mut Journal) -> Result<Vec<Undo>, Failure>;

    /// The effect.
    async fn apply(&self, work: &Work<'_>) -> Result<(), Failure>;
}

/// Makes the folders above `path`, open to everybody as the system's own are. `Undo::of_file_and_dirs` and `of_dirs` are the way back.
fn make_folders_of(path: &Path) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        files::create_dir(folder, 0o755)?;
    }
    Ok(())
}

/// The word of the step whose files outlive an uninstallation that does not purge.
pub(crate) const CONFIGURATION: &str = WriteConfig::NAME;

pub(crate) use declare_user::DECLARATION;
pub(crate) use fetch_release::Source;
pub(crate) use place_release::MODE as RELEASE_MODE;
pub(crate) use start_unit::describe as describe_service;
pub(crate) use write_config::MODE as CONFIG_MODE;
pub(crate) use write_token::MODE as TOKEN_MODE;
pub(crate) use write_unit::TEXT as UNIT_TEXT;

macro_rules! steps {
    ($($module:ident :: $step:ident,)*) => {
        $(pub(crate) use $module::$step;)*

        /// One step of a plan.
        #[derive(Debug)]
        pub(crate) enum Step {
            $($step($step),)*
        }

        /// The words of all steps, in the order in which an installation takes them.
        pub const STEPS: &[&str] = &[$($step::NAME,)*];

        impl Step {
            /// The step's word.
            pub(crate) fn name(&self) -> &'static str {
                match self { $(Self::$step(_) => $step::NAME,)* }
            }

            /// What it does, on what.
            pub(crate) fn summary(&self) -> String {
                match self { $(Self::$step(step) => step.summary(),)* }
            }

            /// What the operator should know of it afterwards.
            pub(crate) fn note(&self) -> Option<String> {
                match self { $(Self::$step(step) => step.note(),)* }
            }

            /// How the machine gets back.
            pub(crate) fn way_back(&self, host: &Host, journal: &mut Journal) -> Result<Vec<Undo>, Failure> {
                match self { $(Self::$step(step) => step.way_back(host, journal),)* }
            }

            /// The effect.
            pub(crate) async fn apply(&self, work: &Work<'_>) -> Result<(), Failure> {
                match self { $(Self::$step(step) => step.apply(work).await,)* }
            }
        }

        $(impl From<$step> for Step {
            fn from(step: $step) -> Self {
                Self::$step(step)
            }
        })*
    };
}

// What may fail for reasons outside of this machine comes first; what a running worker reads comes last.
steps! {
    fetch_release::FetchRelease,
    place_release::PlaceRelease,
    declare_user::DeclareUser,
    create_user::CreateUser,
    write_config::WriteConfig,
    write_token::WriteToken,
    write_unit::WriteUnit,
    switch_release::SwitchRelease,
    link_command::LinkCommand,
    reload_manager::ReloadManager,
    enable_unit::EnableUnit,
    start_unit::StartUnit,
    await_online::AwaitOnline,
}
