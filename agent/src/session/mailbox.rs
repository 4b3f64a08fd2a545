//! What waits to be sent on a connection. Says what it is that waits: of what tells a state (`node.register`, heartbeats, metrics,
//! pings) only the newest, because the older is no longer true and whoever begins to read again wants the present; of everything
//! else each word, up to a bound. Pure; the socket's task carries the letters.

use std::collections::VecDeque;

use aio_protocol::wire::{Body, Heartbeat, Metrics, Register};

/// So many words that nothing newer replaces may wait; those beyond are dropped, and the missing pong ends the connection.
const MOST: usize = 32;

/// What goes to the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Letter {
    /// A frame of this type, with its text.
    Text(&'static str, String),
    /// A ping with a number.
    Ping(u64),
    /// The end of the connection, in good order.
    Close,
}

impl Letter {
    /// Whether a newer one of its kind makes this one worthless.
    fn is_state(&self) -> bool {
        match self {
            Self::Text(kind, _) => [Register::TYPE, Heartbeat::TYPE, Metrics::TYPE].contains(kind),
            Self::Ping(_) => true,
            Self::Close => false,
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(kind, _), Self::Text(other, _)) => kind == other,
            (Self::Ping(_), Self::Ping(_)) | (Self::Close, Self::Close) => true,
            _ => false,
        }
    }
}

/// What waits, in the order in which it is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mailbox(VecDeque<Letter>);

impl Mailbox {
    /// Takes a letter in; false if there was no room for it. It is sent behind all that was there: a ping that takes the place of
    /// an older one still acknowledges what was put in before it.
    pub fn put(&mut self, letter: Letter) -> bool {
        if letter.is_state() {
            self.0.retain(|waiting| !waiting.is_like(&letter));
        } else if self.0.iter().filter(|waiting| !waiting.is_state()).count() >= MOST {
            return false;
        }
        self.0.push_back(letter);
        true
    }

    /// The next letter to send.
    pub fn take(&mut self) -> Option<Letter> {
        self.0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use aio_protocol::wire::{CommandAck, Disconnecting, InstallationFailed};
    use proptest::prelude::*;

    use super::*;

    fn text(kind: &'static str, number: u64) -> Letter {
        Letter::Text(kind, number.to_string())
    }

    fn all(mut mailbox: Mailbox) -> Vec<Letter> {
        std::iter::from_fn(|| mailbox.take()).collect()
    }

    #[test]
    fn of_what_tells_a_state_only_the_newest_waits_and_behind_what_was_there() {
        let mut mailbox = Mailbox::default();
        for number in 1..=1000 {
            for kind in [Register::TYPE, Metrics::TYPE, Heartbeat::TYPE] {
                assert!(mailbox.put(text(kind, number)));
            }
            if number == 500 {
                assert!(mailbox.put(text(InstallationFailed::TYPE, number)));
            }
            assert!(mailbox.put(Letter::Ping(number)));
        }
        let expected = [
            text(InstallationFailed::TYPE, 500),
            text(Register::TYPE, 1000),
            text(Metrics::TYPE, 1000),
            text(Heartbeat::TYPE, 1000),
            Letter::Ping(1000),
        ];
        assert_eq!(all(mailbox), expected);
    }

    #[test]
    fn answers_are_all_kept_up_to_a_bound_and_never_take_the_place_of_a_state() {
        let mut mailbox = Mailbox::default();
        for number in 0..100 {
            assert_eq!(mailbox.put(text(CommandAck::TYPE, number)), number < 32);
        }
        assert!(mailbox.put(text(Heartbeat::TYPE, 7)) && mailbox.put(Letter::Ping(7)));
        let sent = all(mailbox);
        assert_eq!(sent.len(), 34);
        assert_eq!(
            (&sent[0], &sent[31], &sent[33]),
            (&text(CommandAck::TYPE, 0), &text(CommandAck::TYPE, 31), &Letter::Ping(7))
        );
    }

    fn letter() -> impl Strategy<Value = Letter> {
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
            1 => any::<u64>().prop_map(Letter::Ping),
            1 => Just(Letter::Close),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_put_in_the_newest_state_is_kept_nothing_is_invented_and_it_never_grows_beyond_its_bound(
            letters in prop::collection::vec(letter(), 0..300),
        ) {
            let mut mailbox = Mailbox::default();
            let mut taken_in = Vec::new();
            for letter in letters {
                if mailbox.put(letter.clone()) {
                    taken_in.push(letter);
                }
            }
            let sent = all(mailbox);
            prop_assert!(sent.len() <= MOST + 4);
            // What is sent stands in the order in which it was put in.
            let mut rest = taken_in.iter();
            prop_assert!(sent.iter().all(|letter| rest.any(|other| other == letter)));
            for letter in &taken_in {
                let newest = taken_in.iter().rev().find(|other| other.is_like(letter));
                let kept = if letter.is_state() { newest.unwrap_or(letter) } else { letter };
                prop_assert!(sent.contains(kept));
            }
        }
    }
}
