//! What a test has ordered to go wrong, and when it does (pure). An order is for one node or for any, and for
//! so many times.

use std::{collections::HashMap, time::Duration};

use aio_protocol::{ids::NodeId, time::Timestamp};
use serde::{Deserialize, Serialize};

/// More orders than any test has at once.
const MAX_ORDERS: usize = 256;

const LONGEST_DELAY: Duration = Duration::from_secs(120);

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::aiwm) struct Order {
    /// Any node when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    #[serde(default = "once")]
    pub times: u32,
    #[serde(flatten)]
    pub fault: Fault,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "camelCase")]
pub(in crate::aiwm) enum Fault {
    /// The next join is refused.
    Refuse { with: Refusal },
    /// The connection is cut at once, without a word.
    Cut,
    /// The worker is told to go, at once.
    SendAway,
    /// The next join, or the next request, is answered late.
    Delay { millis: u64, at: Place },
    /// The node's tokens of before count as expired.
    Expire,
    /// The next heartbeat is not heard.
    LoseHeartbeat,
}

/// How a join is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::aiwm) enum Refusal {
    #[serde(rename = "TOKEN_MISSING")]
    TokenMissing,
    #[serde(rename = "TOKEN_INVALID")]
    TokenInvalid,
    #[serde(rename = "TOKEN_EXPIRED")]
    TokenExpired,
    #[serde(rename = "1004")]
    NodeGone,
    #[serde(rename = "1005")]
    NodeInactive,
    #[serde(rename = "INTERNAL_ERROR")]
    InternalError,
}

/// Where an answer is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::aiwm) enum Place {
    Join,
    Rest,
}

fn once() -> u32 {
    1
}

/// The orders that wait.
#[derive(Debug, Default)]
pub(in crate::aiwm) struct Faults {
    orders: Vec<Order>,
    /// Tokens of a node that were made until then count as expired.
    expired: HashMap<NodeId, Timestamp>,
}

impl Faults {
    /// Takes an order; says whether there was room for it.
    pub(super) fn put(&mut self, order: Order) -> bool {
        let room = self.orders.len() < MAX_ORDERS && order.times > 0;
        if room {
            self.orders.push(order);
        }
        room
    }

    pub(super) fn expire(&mut self, node: NodeId, now: Timestamp) {
        if self.expired.len() < MAX_ORDERS {
            self.expired.insert(node, now);
        }
    }

    pub(super) fn orders(&self) -> &[Order] {
        &self.orders
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How the next join of a node is refused.
    pub(in crate::aiwm) fn refuse(&mut self, node: &NodeId) -> Option<Refusal> {
        self.take(Some(node), |fault| match fault {
            Fault::Refuse { with } => Some(*with),
            _ => None,
        })
    }

    /// Whether a token of the node that was made then counts as expired.
    pub(in crate::aiwm) fn is_expired(&self, node: &NodeId, issued_at: Timestamp) -> bool {
        self.expired.get(node).is_some_and(|until| issued_at <= *until)
    }

    /// When a token of the node is made: tokens know whole seconds, and one of that in which others expired would
    /// count as one of them.
    pub(in crate::aiwm) fn made_at(&self, node: &NodeId, now: Timestamp) -> Timestamp {
        self.expired.get(node).map_or(now, |until| now.max(until.plus(Duration::from_secs(1))))
    }

    /// Whether the next heartbeat of a node is lost.
    pub(in crate::aiwm) fn lose_heartbeat(&mut self, node: &NodeId) -> bool {
        let lost = self.take(Some(node), |fault| matches!(fault, Fault::LoseHeartbeat).then_some(()));
        lost.is_some()
    }

    /// How late an answer is.
    pub(in crate::aiwm) fn delay(&mut self, node: Option<&NodeId>, place: Place) -> Option<Duration> {
        let millis = self.take(node, |fault| match fault {
            Fault::Delay { millis, at } if *at == place => Some(*millis),
            _ => None,
        });
        millis.map(|millis| Duration::from_millis(millis).min(LONGEST_DELAY))
    }

    fn take<T>(&mut self, node: Option<&NodeId>, which: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        let concerns = |order: &Order| order.node_id.is_none() || order.node_id.as_ref() == node;
        let found = self.orders.iter().enumerate().filter(|(_, order)| concerns(order));
        let (place, taken) = found.filter_map(|(place, order)| Some((place, which(&order.fault)?))).next()?;
        if let Some(order) = self.orders.get_mut(place) {
            order.times -= 1;
            if order.times == 0 {
                self.orders.remove(place);
            }
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn order(value: Value) -> Order {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_order_is_for_its_node_and_its_number_of_times() {
        let (ours, theirs) = (NodeId::from_bytes([1; 12]), NodeId::from_bytes([2; 12]));
        let mut faults = Faults::default();
        assert!(faults.put(order(json!({"fault": "refuse", "with": "1005", "nodeId": ours, "times": 2}))));
        assert!(faults.put(order(json!({"fault": "loseHeartbeat"}))));
        assert_eq!(faults.refuse(&theirs), None);
        assert_eq!(faults.refuse(&ours), Some(Refusal::NodeInactive));
        assert!(faults.lose_heartbeat(&theirs) && !faults.lose_heartbeat(&theirs));
        assert_eq!(faults.refuse(&ours), Some(Refusal::NodeInactive));
        assert_eq!(faults.refuse(&ours), None);
        assert!(faults.orders().is_empty());
    }

    #[test]
    fn a_delay_is_for_its_place_and_never_for_long() {
        let node = NodeId::from_bytes([1; 12]);
        let mut faults = Faults::default();
        assert!(faults.put(order(json!({"fault": "delay", "millis": u64::MAX, "at": "join"}))));
        assert_eq!(faults.delay(None, Place::Rest), None);
        assert_eq!(faults.delay(Some(&node), Place::Join), Some(LONGEST_DELAY));
    }

    #[test]
    fn what_was_made_before_is_expired_and_what_is_made_after_is_not() {
        let (node, noon) = (NodeId::from_bytes([1; 12]), Timestamp::from_millis(1_000_000));
        let mut faults = Faults::default();
        faults.expire(node.clone(), noon);
        assert!(faults.is_expired(&node, noon));
        assert!(!faults.is_expired(&node, noon.plus(Duration::from_secs(1))));
        assert!(!faults.is_expired(&node, faults.made_at(&node, noon)));
        assert!(!faults.is_expired(&NodeId::from_bytes([2; 12]), noon));
        faults.clear();
        assert!(!faults.is_expired(&node, noon));
    }

    #[test]
    fn an_order_that_is_none_is_refused_and_so_are_too_many() {
        for wrong in [
            json!({}),
            json!({"fault": "explode"}),
            json!({"fault": "refuse"}),
            json!({"fault": "refuse", "with": "7"}),
        ] {
            assert!(serde_json::from_value::<Order>(wrong.clone()).is_err(), "{wrong}");
        }
        let mut faults = Faults::default();
        assert!(!faults.put(order(json!({"fault": "loseHeartbeat", "times": 0}))));
        let taken = (0..1000).filter(|_| faults.put(order(json!({"fault": "loseHeartbeat"})))).count();
        assert_eq!(taken, MAX_ORDERS);
    }
}
