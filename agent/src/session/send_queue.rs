//! Queue of outgoing WebSocket messages for one connection.
//!
//! State updates (`node.register`, heartbeats, metrics, pings) are coalesced: a newer message of
//! the same type replaces the queued one, because the old value is no longer true. All other
//! messages are kept in order, up to `MAX_QUEUED`.
//!
//! Pure data structure; the socket task does the I/O.

use std::collections::VecDeque;

use aio_protocol::wire::{Body, Heartbeat, Metrics, Register};

/// Maximum number of queued messages that are not state updates. Further messages are dropped; the
/// peer then misses a pong and the connection is closed.
const MAX_QUEUED: usize = 32;

/// An outgoing WebSocket message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// A text frame: message type and JSON text.
    Text(&'static str, String),
    /// A packet of AIWM's dialect, as it stands.
    Packet(String),
    /// A ping that carries a heartbeat's sequence number.
    Ping(u64),
    /// A close frame.
    Close,
}

impl Outgoing {
    /// Whether a newer message of the same kind replaces this one.
    fn is_state_update(&self) -> bool {
        match self {
            Self::Text(kind, _) => [Register::TYPE, Heartbeat::TYPE, Metrics::TYPE].contains(kind),
            Self::Ping(_) => true,
            Self::Packet(_) | Self::Close => false,
        }
    }

    fn same_kind(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(kind, _), Self::Text(other, _)) => kind == other,
            (Self::Ping(_), Self::Ping(_)) | (Self::Close, Self::Close) => true,
            _ => false,
        }
    }
}

/// Messages waiting to be sent, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SendQueue(VecDeque<Outgoing>);

impl SendQueue {
    /// Appends `message` and removes a queued state update of the same kind. Returns `false` if the
    /// queue is full.
    ///
    /// A replaced ping moves to the end, so it still acknowledges every message queued before it.
    pub fn push(&mut self, message: Outgoing) -> bool {
        if message.is_state_update() {
            self.0.retain(|queued| !queued.same_kind(&message));
        } else if self.0.iter().filter(|queued| !queued.is_state_update()).count() >= MAX_QUEUED {
            return false;
        }
        self.0.push_back(message);
        true
    }

    /// Removes and returns the next message to send.
    pub fn pop(&mut self) -> Option<Outgoing> {
        self.0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use aio_protocol::wire::{CommandAck, Disconnecting, InstallationFailed};
    use proptest::prelude::*;

    use super::*;

    fn text(kind: &'static str, number: u64) -> Outgoing {
        Outgoing::Text(kind, number.to_string())
    }

    fn all(mut queue: SendQueue) -> Vec<Outgoing> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn of_what_tells_a_state_only_the_newest_waits_and_behind_what_was_there() {
        let mut queue = SendQueue::default();
        for number in 1..=1000 {
            for kind in [Register::TYPE, Metrics::TYPE, Heartbeat::TYPE] {
                assert!(queue.push(text(kind, number)));
            }
            if number == 500 {
                assert!(queue.push(text(InstallationFailed::TYPE, number)));
            }
            assert!(queue.push(Outgoing::Ping(number)));
        }
        let expected = [
            text(InstallationFailed::TYPE, 500),
            text(Register::TYPE, 1000),
            text(Metrics::TYPE, 1000),
            text(Heartbeat::TYPE, 1000),
            Outgoing::Ping(1000),
        ];
        assert_eq!(all(queue), expected);
    }

    #[test]
    fn answers_are_all_kept_up_to_a_bound_and_never_take_the_place_of_a_state() {
        let mut queue = SendQueue::default();
        for number in 0..100 {
            assert_eq!(queue.push(text(CommandAck::TYPE, number)), number < 32);
        }
        assert!(queue.push(text(Heartbeat::TYPE, 7)) && queue.push(Outgoing::Ping(7)));
        let sent = all(queue);
        assert_eq!(sent.len(), 34);
        assert_eq!(
            (&sent[0], &sent[31], &sent[33]),
            (&text(CommandAck::TYPE, 0), &text(CommandAck::TYPE, 31), &Outgoing::Ping(7))
        );
    }

    fn message() -> impl Strategy<Value = Outgoing> {
        let kind = prop::sample::select(vec![
            Register::TYPE,
            Heartbeat::TYPE,
            Metrics::TYPE,
            CommandAck::TYPE,
            InstallationFailed::TYPE,
            Disconnecting::TYPE,
        ]);
        prop_oneof![
            4 => (kind, any::<u64>()).prop_map(|(kind, number)| text(kind, number)),
            1 => any::<u64>().prop_map(Outgoing::Ping),
            1 => Just(Outgoing::Close),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_put_in_the_newest_state_is_kept_nothing_is_invented_and_it_never_grows_beyond_its_bound(
            messages in prop::collection::vec(message(), 0..300),
        ) {
            let mut queue = SendQueue::default();
            let mut taken_in = Vec::new();
            for message in messages {
                if queue.push(message.clone()) {
                    taken_in.push(message);
                }
            }
            let sent = all(queue);
            prop_assert!(sent.len() <= MAX_QUEUED + 4);
            // What is sent stands in the order in which it was put in.
            let mut rest = taken_in.iter();
            prop_assert!(sent.iter().all(|message| rest.any(|other| other == message)));
            for message in &taken_in {
                let newest = taken_in.iter().rev().find(|other| other.same_kind(message));
                let kept = if message.is_state_update() { newest.unwrap_or(message) } else { message };
                prop_assert!(sent.contains(kept));
            }
        }
    }
}
