//! What a node is to the controller: its status, its roles and who owns it.

use serde::{Deserialize, Serialize};

use crate::ids::OwnerId;

/// Where a node stands in its life. `transition` decides how it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum NodeStatus {
    /// Registered; nothing has been heard of the machine.
    Pending,
    /// An installer reported that it has begun.
    Installing,
    /// A worker was welcomed and its lease runs.
    Online,
    /// The lease ended, or the worker said goodbye.
    Offline,
    /// Taken out of service by an admin.
    Maintenance,
    /// The installation failed.
    Error,
    /// Decommissioned. Final.
    Inactive,
}

impl NodeStatus {
    /// Every status, in the order of a node's life.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Installing,
        Self::Online,
        Self::Offline,
        Self::Maintenance,
        Self::Error,
        Self::Inactive,
    ];

    /// The status as the wire writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Installing => "installing",
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Maintenance => "maintenance",
            Self::Error => "error",
            Self::Inactive => "inactive",
        }
    }

    /// The status that `text` names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl std::fmt::Display for NodeStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a node does for the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Runs workloads.
    Worker,
    /// Runs the control plane.
    Controller,
    /// Routes traffic.
    Proxy,
    /// Keeps data.
    Storage,
}

impl NodeRole {
    /// The role as the wire writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Controller => "controller",
            Self::Proxy => "proxy",
            Self::Storage => "storage",
        }
    }
}

/// Who a node belongs to. Events reach the dashboards of this organisation only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// The organisation.
    pub org_id: OwnerId,
    /// The user who registered the node.
    pub user_id: OwnerId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_written_as_it_is_read() {
        for status in NodeStatus::ALL {
            assert_eq!(NodeStatus::parse(status.as_str()), Some(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        assert_eq!(NodeStatus::parse("ONLINE"), None);
    }
}
