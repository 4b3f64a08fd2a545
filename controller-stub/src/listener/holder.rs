//! Whom a connection, a download or the bytes of an answer are counted for.

use std::net::{IpAddr, Ipv6Addr};

use aio_protocol::ids::{NodeId, OwnerId};
use ipnet::IpNet;

/// Whoever holds a share of what the controller has. Without an accepted token it is the address;
/// with one, whom the token speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// An IPv4 address or an IPv6 network of 64 bits.
    Site(IpAddr),
    /// A proxy of ours, which carries many clients.
    Proxy,
    Organisation(OwnerId),
    Node(NodeId),
}

impl Holder {
    /// Who connects from `peer`.
    pub(crate) fn at(peer: IpAddr, proxies: &[IpNet]) -> Self {
        if is_proxy(peer, proxies) { Self::Proxy } else { Self::Site(site(peer)) }
    }
}

/// Whether `address` is a proxy of ours. IPv4 and its IPv6 form are the same, here and in `proxies`.
pub(crate) fn is_proxy(address: IpAddr, proxies: &[IpNet]) -> bool {
    let short = address.to_canonical();
    let long = match short {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(_) => short,
    };
    proxies.iter().any(|network| network.contains(&short) || network.contains(&long))
}

/// Whoever has one IPv6 address has 2^64 of them.
pub(crate) fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_an_ipv4_address_or_an_ipv6_network() {
        let site_of = |text: &str| site(text.parse().unwrap()).to_string();
        assert_eq!(site_of("192.0.2.7"), "192.0.2.7");
        assert_eq!(site_of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(site_of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    #[test]
    fn a_proxy_has_no_site() {
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        assert_eq!(Holder::at([10, 1, 2, 3].into(), &proxies), Holder::Proxy);
        assert_eq!(Holder::at("::ffff:10.1.2.3".parse().unwrap(), &proxies), Holder::Proxy);
        assert_eq!(Holder::at([192, 0, 2, 1].into(), &proxies), Holder::Site([192, 0, 2, 1].into()));
        for network in ["::ffff:10.0.0.0/104", "::ffff:10.1.2.3/128", "::/0"] {
            let proxies = [network.parse().unwrap()];
            assert_eq!(Holder::at([10, 1, 2, 3].into(), &proxies), Holder::Proxy, "{network}");
        }
    }
}
