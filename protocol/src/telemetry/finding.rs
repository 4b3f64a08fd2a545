//! What is wrong with a GPU and what to do about it. Says nothing about how it was found out.

use serde::{Deserialize, Serialize};

use super::Health;
use crate::{inventory::understood, text::bounded};

/// One thing that is wrong with a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is; never `ok`.
    pub health: Health,
    /// In words, e.g. `Xid 79: the GPU has fallen off the bus`.
    #[serde(deserialize_with = "bounded::<_, _, 255>")]
    pub reason: String,
    /// What to do about it.
    #[serde(default, deserialize_with = "understood", skip_serializing_if = "RecoveryAction::is_nothing")]
    pub action: RecoveryAction,
}

/// What brings a GPU back. The words are those of NVIDIA's catalogue of Xid errors where it has
/// one; the later in this list, the more it costs.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryAction {
    /// Nothing.
    #[default]
    #[serde(rename = "none")]
    Nothing,
    /// Restart the program that used it.
    RestartApp,
    /// Restart the service that connects GPUs to each other, `nvidia-fabricmanager`.
    RestartFabricManager,
    /// Let the worker's user use the device: its mode, and what the unit allows.
    CheckPermissions,
    /// Look after cooling and power.
    CheckCooling,
    /// Check cables, connectors and the slot.
    CheckMechanicals,
    /// Give it no work that talks to other GPUs, until it has been reset.
    DrainP2p,
    /// Take its work away, then reset it.
    DrainAndReset,
    /// Reset it: stop what uses it, then `nvidia-smi --gpu-reset`.
    ResetGpu,
    /// Reboot the machine.
    Reboot,
    /// Have it examined, and probably replaced.
    ContactSupport,
}

impl RecoveryAction {
    /// Whether there is nothing to do.
    pub fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }

    /// What an operator is told to do.
    pub fn in_words(self) -> Option<&'static str> {
        Some(match self {
            Self::Nothing => return None,
            Self::RestartApp => "restart the program that used it",
            Self::RestartFabricManager => "restart nvidia-fabricmanager",
            Self::CheckPermissions => "look at the modes of /dev/nvidia* and at the unit's DeviceAllow=",
            Self::CheckCooling => "check cooling and power",
            Self::CheckMechanicals => "check cables, connectors and the slot",
            Self::DrainP2p => "give it no work that talks to other GPUs, and reset it soon",
            Self::DrainAndReset => "take its work away, then reset the GPU",
            Self::ResetGpu => "reset the GPU",
            Self::Reboot => "reboot the machine",
            Self::ContactSupport => "have the GPU examined or replaced",
        })
    }
}
