//! The machine that is installed on: what it is, who edits its accounts, what its services said,
//! and who works on it. Decides nothing.

pub(crate) mod accounts;
pub(crate) mod adoption;
pub(crate) mod drop_ins;
pub(crate) mod entry;
pub(crate) mod host;
pub(crate) mod lock;
pub(crate) mod observe;
pub(crate) mod service_log;
pub(crate) mod state_folder;
pub(crate) mod updater;
