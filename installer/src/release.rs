//! The release that is installed: which one, on whose word, how it gets here, and whether it is
//! what was promised.

pub(crate) mod bundle;
pub(crate) mod download;
pub(crate) mod key;
pub(crate) mod offer;
pub(crate) mod prune;
pub(crate) mod tree;
pub(crate) mod verify;
