//! How many requests a client may send in a second. A client is whom its valid token speaks for, so that a
//! fleet behind one address is many; who shows no valid token is one of its address. A token that was revoked
//! has a limit apart from its successor's.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use aio_protocol::ids::{NodeId, OwnerId};

use crate::{
    listener::holder::site,
    rate::{Allowances, Rate},
};

/// A whole site may stand behind an address.
const STRANGERS_FACTOR: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    User(OwnerId, OwnerId),
    /// By node and `jti`.
    Token(NodeId, String),
    Stranger(IpAddr),
}

/// The limit, and who has used how much of it.
pub(crate) struct RequestLimit {
    known: Allowances<Client>,
    strangers: Allowances<IpAddr>,
}

impl RequestLimit {
    /// So many in a second, and as many at once.
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        let strangers = per_second.saturating_mul(STRANGERS_FACTOR);
        Self {
            known: Allowances::new(Rate::per_second(per_second)),
            strangers: Allowances::new(Rate::per_second(strangers)),
        }
    }

    /// Counts a request of `client`, or says when to come back.
    pub(crate) fn admit(&self, client: Client) -> Result<(), Duration> {
        let now = Instant::now();
        match client {
            Client::Stranger(address) => self.strangers.spend(site(address), 1, now),
            known => self.known.spend(known, 1, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn node(number: u8) -> Client {
        Client::Token(NodeId::from_bytes([number; 12]), "a token".to_owned())
    }

    #[test]
    fn each_client_has_a_limit_of_its_own() {
        let limit = RequestLimit::new(NonZeroU32::new(2).unwrap());
        for number in 0..100 {
            let admitted = (0..50).filter(|_| limit.admit(node(number)).is_ok()).count();
            // A slow machine gives a little of the next second.
            assert!((2..=4).contains(&admitted), "{admitted}");
        }
    }

    #[test]
    fn strangers_of_one_site_are_one_client() {
        let limit = RequestLimit::new(NonZeroU32::MIN);
        let admitted = (0..1000_u16)
            .filter(|last| {
                let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, *last);
                limit.admit(Client::Stranger(address.into())).is_ok()
            })
            .count();
        assert!((10..=20).contains(&admitted), "{admitted}");
        assert!(limit.admit(Client::Stranger([192, 0, 2, 1].into())).is_ok());
    }
}
