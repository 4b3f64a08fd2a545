//! The steps of an installation, one file each. A step's word is the same everywhere: its type
//! (`WriteUnit`), its file, its log field and its journal tag (`write_unit`). A step knows how to
//! do one thing and how the machine gets back; `plan` decides which are needed.

mod action;
mod create_user;
mod declare_user;
mod enable_unit;
mod enable_updater;
mod fetch_release;
mod link_command;
mod place_release;
mod reload_manager;
mod start_unit;
mod switch_release;
mod write_config;
mod write_token;
mod write_unit;
mod write_units;

use self::action::Action;
use crate::{
    failure::Failure,
    machine::host::Host,
    transaction::{
        journal::copies::Copies,
        proof::Proof,
        undo::record::Undo,
        work::{Place, Work},
    },
};

/// The word of the step whose files outlive an uninstallation that does not purge.
pub(crate) const CONFIGURATION: &str = WriteConfig::NAME;

/// The word of the step after which another program runs.
pub(crate) const START_UNIT: &str = StartUnit::NAME;

macro_rules! steps {
    ($($module:ident :: $step:ident,)* ; $($more:ident :: $other:ident,)*) => {
        steps! { all $($module::$step,)* $($more::$other,)* }

        /// The words of all steps and of the proof, in the order in which an installation takes
        /// them.
        pub const STEPS: &[&str] = &[$($step::NAME,)* Proof::NAME];

        /// The words of the steps that it takes besides where the controller is to update the node.
        pub const UPDATER_STEPS: &[&str] = &[$($other::NAME,)*];
    };
    (all $($module:ident :: $step:ident,)*) => {
        $(pub(crate) use $module::$step;)*

        /// One step of a plan.
        #[derive(Debug)]
        pub(crate) enum Step {
            $($step($step),)*
        }

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
            pub(crate) fn way_back(&self, host: &Host, copies: &mut Copies) -> Result<Vec<Undo>, Failure> {
                match self { $(Self::$step(step) => step.way_back(host, copies),)* }
            }

            /// The effect.
            pub(crate) async fn apply(&self, work: &Work<'_>, place: Place) -> Result<(), Failure> {
                match self { $(Self::$step(step) => step.apply(work, place).await,)* }
            }
        }

        $(impl From<$step> for Step {
            fn from(step: $step) -> Self {
                Self::$step(step)
            }
        })*
    };
}

// What may fail for reasons outside of this machine comes first; what a running worker reads comes
// last.
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
    ;
    write_units::WriteUnits,
    enable_updater::EnableUpdater,
}
