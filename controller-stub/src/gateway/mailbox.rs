//! What the rest of the controller asks of a connection: to close, or to offer its worker a new token. One place for each, so that
//! a mailbox never grows; asking twice is asking once, and the first reason to close stays.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Mailbox {
    waiting: Mutex<Waiting>,
    bell: Notify,
}

#[derive(Default)]
struct Waiting {
    close: Option<u16>,
    offer: bool,
}

/// What is asked of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Close with this code.
    Close(u16),
    /// Offer the worker a new token.
    OfferToken,
}

impl Mailbox {
    pub(crate) fn post(&self, order: Order) {
        {
            let mut waiting = self.waiting();
            match order {
                Order::Close(code) => {
                    waiting.close.get_or_insert(code);
                }
                Order::OfferToken => waiting.offer = true,
            }
        }
        self.bell.notify_one();
    }

    /// The next order, a close before all else. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&self) -> Order {
        loop {
            if let Some(order) = self.take() {
                return order;
            }
            self.bell.notified().await;
        }
    }

    fn take(&self) -> Option<Order> {
        let mut waiting = self.waiting();
        if let Some(code) = waiting.close.take() {
            return Some(Order::Close(code));
        }
        std::mem::take(&mut waiting.offer).then_some(Order::OfferToken)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_close_comes_first_and_keeps_its_first_reason() {
        let mailbox = Mailbox::default();
        for order in [Order::OfferToken, Order::Close(4401), Order::Close(1012), Order::OfferToken] {
            mailbox.post(order);
        }
        assert_eq!(mailbox.next().await, Order::Close(4401));
        assert_eq!(mailbox.next().await, Order::OfferToken);
        assert_eq!(mailbox.take(), None);
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let mailbox = Mailbox::default();
        let (order, ()) = tokio::join!(mailbox.next(), async { mailbox.post(Order::OfferToken) });
        assert_eq!(order, Order::OfferToken);
    }
}
