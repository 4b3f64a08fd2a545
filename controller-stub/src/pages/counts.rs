//! Nodes counted by status: numbers that open the list that they counted.

use std::collections::BTreeMap;

use aio_protocol::node::NodeStatus;

use super::words;

/// A number that opens what it counted.
pub(super) struct Count {
    pub name: &'static str,
    pub about: &'static str,
    pub count: u64,
    pub page: String,
}

/// A count for each status but `inactive`, in the order of what is wrong first.
pub(super) fn status_counts(by_status: &BTreeMap<NodeStatus, u64>) -> Vec<Count> {
    let order = [
        NodeStatus::Error,
        NodeStatus::Offline,
        NodeStatus::Installing,
        NodeStatus::Pending,
        NodeStatus::Maintenance,
        NodeStatus::Online,
    ];
    let count = |status: NodeStatus| Count {
        name: status.as_str(),
        about: words::about_status(&status),
        count: by_status.get(&status).copied().unwrap_or_default(),
        page: format!("ui/nodes?status={}", status.as_str()),
    };
    order.map(count).into()
}
