//! From where a request really comes: the peer of the connection, unless that is a proxy of ours, which says
//! for whom it asks. Anybody can send `X-Forwarded-For`, so it is read from its end and only as far as
//! proxies of ours wrote it.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{HeaderMap, request::Parts},
};
use ipnet::IpNet;

use crate::{app::App, listener::holder::is_proxy};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of whoever asks.
pub(crate) struct ClientAddress(pub IpAddr);

impl FromRequestParts<Arc<App>> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        Ok(Self(address(parts, &app.trusted_proxies)))
    }
}

/// The address of whoever sent this request.
pub(crate) fn address(parts: &Parts, proxies: &[IpNet]) -> IpAddr {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip());
    client(peer, &parts.headers, proxies)
}

fn client(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    let mut values: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    while let Some(value) = values.pop() {
        for hop in value.to_str().unwrap_or_default().rsplit(',') {
            if !is_proxy(client, proxies) {
                return client;
            }
            match parse(hop.trim()) {
                Some(before) => client = before.to_canonical(),
                None => return client,
            }
        }
    }
    client
}

/// Some proxies add the port.
fn parse(hop: &str) -> Option<IpAddr> {
    hop.parse().ok().or_else(|| hop.parse().ok().map(|address: SocketAddr| address.ip()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(peer: &str, headers: &[&str], proxies: &[&str]) -> String {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let proxies: Vec<IpNet> = proxies.iter().map(|it| it.parse().unwrap()).collect();
        client(peer.parse().unwrap(), &map, &proxies).to_string()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(seen("192.0.2.1", &["203.0.113.9"], &[]), "192.0.2.1");
        assert_eq!(seen("192.0.2.1", &["203.0.113.9"], &["10.0.0.0/8"]), "192.0.2.1");
    }

    #[test]
    fn a_proxy_of_ours_is_believed_and_what_its_client_claims_is_not() {
        let ours = ["10.0.0.0/8", "fd00::/8"];
        assert_eq!(seen("10.0.0.1", &["203.0.113.9"], &ours), "203.0.113.9");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1, 203.0.113.9"], &ours), "203.0.113.9");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1", "203.0.113.9, 10.2.3.4"], &ours), "203.0.113.9");
        assert_eq!(seen("::ffff:10.0.0.1", &["203.0.113.9:4711"], &ours), "203.0.113.9");
        assert_eq!(seen("fd00::1", &["[2001:db8::7]:443"], &ours), "2001:db8::7");
    }

    #[test]
    fn what_cannot_be_read_ends_the_way_back() {
        let ours = ["10.0.0.0/8"];
        for headers in [&[][..], &[""], &["unknown"], &["203.0.113.9, "], &["203.0.113.9, _hidden"]] {
            assert_eq!(seen("10.0.0.1", headers, &ours), "10.0.0.1", "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(value in "[ -~]{0,100}") {
            seen("10.0.0.1", &[&value], &["10.0.0.0/8"]);
        }
    }
}
