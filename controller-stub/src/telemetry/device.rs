//! What a node calls a GPU by, in little memory: nearly always a small number.

use std::fmt;

/// A GPU's `deviceId`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Device {
    Index(u8),
    Named(Box<str>),
}

impl Device {
    pub(crate) fn of(id: &str) -> Self {
        match id.parse::<u8>() {
            // `07` is another name than `7`.
            Ok(index) if index.to_string() == id => Self::Index(index),
            _ => Self::Named(id.into()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => index.fmt(f),
            Self::Named(name) => f.write_str(name),
        }
    }
}
