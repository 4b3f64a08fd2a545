//! The words of alarms: which kinds there are, what each is about, and how long it is damped.

use std::time::Duration;

use aio_protocol::{
    ids::{NodeId, OwnerId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an alarm is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AlarmKind)]
pub(crate) enum Kind {
    /// A node is offline for too long.
    NodeOffline,
    /// An installation failed or stalled.
    InstallationFailed,
    /// Something is wrong with a GPU.
    GpuHealth,
    /// A GPU that was there is not any more.
    GpuMissing,
    /// A container is started again and again.
    ContainerRestarting,
    /// The kernel killed processes of a container because its memory was full.
    ContainerOomKilled,
    /// A file system of a node has little room left.
    DiskFull,
    /// A file system of a node can hold few more files.
    InodesFull,
    /// A node has little main memory left.
    MemoryFull,
    /// A sensor of a node reports heat.
    Overheated,
    /// A service of a node has failed.
    ServiceFailed,
    /// Two machines claim to be one node.
    IdentityConflict,
    /// A node's last valid token ends soon.
    TokenEnding,
    /// A user's last token that was made to last ends soon, or has ended.
    UserTokenEnding,
    /// A rollout was halted.
    UpdateHalted,
    /// Events were given up.
    DeadLetters,
    /// Events are not delivered.
    DeliveryPaused,
    /// The disk of a controller's data folder is nearly full.
    ControllerDisk,
    /// The controller's TLS certificate ends soon, or will not do.
    CertificateEnding,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AlarmLevel)]
pub(crate) enum Level {
    Warning,
    Critical,
}

/// Whom an alarm concerns.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Whose {
    Node(NodeId),
    Organisation(OwnerId),
    Controller,
}

/// Tells alarms apart: there is one at a time of each.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub whose: Whose,
    pub kind: Kind,
    /// Which of several of this kind; empty where there is one.
    pub part: String,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub key: Key,
    /// The organisation that may see it; only operators see what concerns the controller.
    pub org: Option<OwnerId>,
    pub level: Level,
    /// What is wrong, in a sentence.
    pub reason: String,
    /// What to do about it.
    pub action: String,
    /// Since when it has been so, where that is known.
    pub since: Option<Timestamp>,
}

/// How an alarm ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Resolution {
    /// What was wrong is over.
    Cured,
    /// The node was put into maintenance.
    Maintenance,
    /// The node is no longer in service.
    Decommissioned,
}

/// How long something is wrong before it is an alarm, and right before the alarm is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damping {
    pub raise_after: Duration,
    pub resolve_after: Duration,
}

impl Kind {
    pub(crate) const ALL: [Self; 19] = [
        Self::NodeOffline,
        Self::InstallationFailed,
        Self::GpuHealth,
        Self::GpuMissing,
        Self::ContainerRestarting,
        Self::ContainerOomKilled,
        Self::DiskFull,
        Self::InodesFull,
        Self::MemoryFull,
        Self::Overheated,
        Self::ServiceFailed,
        Self::IdentityConflict,
        Self::TokenEnding,
        Self::UserTokenEnding,
        Self::UpdateHalted,
        Self::DeadLetters,
        Self::DeliveryPaused,
        Self::ControllerDisk,
        Self::CertificateEnding,
    ];

    /// As the API and the database write it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NodeOffline => "node_offline",
            Self::InstallationFailed => "installation_failed",
            Self::GpuHealth => "gpu_health",
            Self::GpuMissing => "gpu_missing",
            Self::ContainerRestarting => "container_restarting",
            Self::ContainerOomKilled => "container_oom_killed",
            Self::DiskFull => "disk_full",
            Self::InodesFull => "inodes_full",
            Self::MemoryFull => "memory_full",
            Self::Overheated => "overheated",
            Self::ServiceFailed => "service_failed",
            Self::IdentityConflict => "identity_conflict",
            Self::TokenEnding => "token_ending",
            Self::UserTokenEnding => "user_token_ending",
            Self::UpdateHalted => "update_halted",
            Self::DeadLetters => "dead_letters",
            Self::DeliveryPaused => "delivery_paused",
            Self::ControllerDisk => "controller_disk",
            Self::CertificateEnding => "certificate_ending",
        }
    }

    /// Whether each controller has its own.
    pub(crate) fn is_of_one_controller(self) -> bool {
        matches!(self, Self::ControllerDisk | Self::CertificateEnding)
    }

    /// Whether only a connected worker can say that it is over.
    pub(crate) fn is_told_by_worker(self) -> bool {
        matches!(self, Self::GpuHealth | Self::GpuMissing) || self.is_of_containers() || self.is_of_machine()
    }

    /// Whether it is of a node's machine itself.
    pub(crate) fn is_of_machine(self) -> bool {
        use Kind::{DiskFull, InodesFull, MemoryFull, Overheated, ServiceFailed};
        matches!(self, DiskFull | InodesFull | MemoryFull | Overheated | ServiceFailed)
    }

    /// Whether it is of a node's containers.
    pub(crate) fn is_of_containers(self) -> bool {
        matches!(self, Self::ContainerRestarting | Self::ContainerOomKilled)
    }

    /// `offline_after` is how long a node may be offline.
    pub(crate) fn damping(self, offline_after: Duration) -> Damping {
        let of = |raise_secs, resolve_secs| Damping {
            raise_after: Duration::from_secs(raise_secs),
            resolve_after: Duration::from_secs(resolve_secs),
        };
        match self {
            Self::NodeOffline => {
                Damping { raise_after: offline_after, resolve_after: Duration::from_secs(60) }
            }
            // The worker damps the health of GPUs itself.
            Self::GpuHealth | Self::GpuMissing => of(0, 120),
            // The same with machines and containers, whose end is news at once.
            Self::ContainerRestarting
            | Self::ContainerOomKilled
            | Self::DiskFull
            | Self::InodesFull
            | Self::MemoryFull
            | Self::Overheated
            | Self::ServiceFailed => of(0, 0),
            Self::DeliveryPaused => of(120, 60),
            Self::ControllerDisk => of(60, 300),
            // An offer may be on its way.
            Self::TokenEnding => of(300, 0),
            Self::InstallationFailed
            | Self::IdentityConflict
            | Self::UserTokenEnding
            | Self::CertificateEnding
            | Self::UpdateHalted
            | Self::DeadLetters => of(0, 0),
        }
    }
}

impl Level {
    pub(crate) const ALL: [Self; 2] = [Self::Warning, Self::Critical];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Resolution {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Cured => "cured",
            Self::Maintenance => "maintenance",
            Self::Decommissioned => "decommissioned",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_written_one_way_and_stands_in_the_operators_table() {
        let page = include_str!("../../../docs/operations.md");
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.as_str()));
            assert!(page.contains(&format!("| `{}` |", kind.as_str())), "{}", kind.as_str());
        }
        for level in Level::ALL {
            assert_eq!(serde_json::to_string(&level).unwrap(), format!("\"{}\"", level.as_str()));
        }
        for resolution in [Resolution::Cured, Resolution::Maintenance, Resolution::Decommissioned] {
            assert_eq!(serde_json::to_string(&resolution).unwrap(), format!("\"{}\"", resolution.as_str()));
        }
    }
}
