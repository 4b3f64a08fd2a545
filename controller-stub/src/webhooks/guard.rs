//! Which addresses a webhook may be at: public ones, and those that the operator allows. Pure but for the
//! look-up of names, whose addresses are the ones that are connected to, so that a name cannot change between
//! check and use.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// The longest URL of a webhook, in bytes.
pub(crate) const MAX_URL_BYTES: usize = 2048;

/// Networks inside, or of no single machine (IANA's registries of special-purpose addresses), and an address
/// within public space that answers on Azure's machines alone.
const INSIDE_V4: [(Ipv4Addr, u8); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Where IPv6 is public: 2000::/3. Unique local and link-local addresses lie outside.
const PUBLIC_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What is not public within: protocols' own (Teredo among them), documentation, and 6to4, which carries
/// IPv4.
const INSIDE_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// The operator's networks.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    allowed: Arc<[IpNet]>,
}

/// Why a webhook may not be at a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("must begin with https://, name a host, and have neither a user nor a fragment")]
    Form,
    #[error("is longer than {MAX_URL_BYTES} bytes")]
    Length,
    #[error("{0} is an address inside, and WEBHOOK_NETWORKS does not allow it")]
    Inside(IpAddr),
    /// Whether there is such a name inside, nobody learns who may only name it.
    #[error("{0} has no address that a webhook may be at")]
    Name(String),
    #[error("is in the clear, which only WEBHOOK_NETWORKS allows: use https://")]
    Clear,
}

impl Guard {
    pub(crate) fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Reads a URL; refuses one whose host may not be posted to, as far as the URL itself tells.
    pub(crate) fn url(&self, text: &str) -> Result<Url, Refused> {
        if text.len() > MAX_URL_BYTES {
            return Err(Refused::Length);
        }
        let url: Url = text.parse().map_err(|_| Refused::Form)?;
        let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !bare {
            return Err(Refused::Form);
        }
        if url.scheme() == "http" && self.allowed.is_empty() {
            return Err(Refused::Clear);
        }
        if let Some(address) = literal(&url) {
            self.admit(address, url.scheme() == "http")?;
        }
        Ok(url)
    }

    /// Whether an address may be posted to, in the `clear` or over TLS.
    fn admit(&self, address: IpAddr, clear: bool) -> Result<(), Refused> {
        let address = reached(address);
        if self.allowed.iter().any(|network| network.contains(&address)) {
            Ok(())
        } else if !is_public(address) {
            Err(Refused::Inside(address))
        } else if clear {
            Err(Refused::Clear)
        } else {
            Ok(())
        }
    }

    /// Looks names up for a client of `url`, and answers with addresses that may be posted to alone.
    pub(super) fn resolver(&self, url: &Url) -> Arc<GuardedNames> {
        Arc::new(GuardedNames { guard: self.clone(), clear: url.scheme() == "http" })
    }
}

/// The address that a URL names itself. No name is looked up for it.
fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// The address that is reached: of one that carries an IPv4 address, mapped (::ffff:0:0/96) or through NAT64
/// (64:ff9b::/96, RFC 6052), that one.
fn reached(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into()
            }
            _ => v6.to_canonical(),
        },
        IpAddr::V4(_) => address,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let within = |(network, length): &(Ipv4Addr, u8)| {
                address.to_bits() >> (32 - length) == network.to_bits() >> (32 - length)
            };
            !INSIDE_V4.iter().any(within)
        }
        IpAddr::V6(address) => {
            let within = |(network, length): &(Ipv6Addr, u8)| {
                address.to_bits() >> (128 - length) == network.to_bits() >> (128 - length)
            };
            within(&PUBLIC_V6) && !INSIDE_V6.iter().any(within)
        }
    }
}

/// The system's names, without addresses that may not be posted to.
pub(super) struct GuardedNames {
    guard: Guard,
    clear: bool,
}

impl Resolve for GuardedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, clear, name) = (self.guard.clone(), self.clear, name.as_str().to_owned());
        Box::pin(async move {
            let mut admitted: Vec<SocketAddr> = Vec::new();
            let mut refused = Refused::Name(name.clone());
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            if let Err(error) = &found {
                tracing::debug!(name, %error, "a webhook's name is not known");
            }
            for found in found.into_iter().flatten() {
                match guard.admit(found.ip(), clear) {
                    Ok(()) => admitted.push(found),
                    Err(Refused::Clear) => refused = Refused::Clear,
                    Err(why) => tracing::debug!(name, %why, "a webhook's name leads inside"),
                }
            }
            if admitted.is_empty() {
                Err(refused.into())
            } else {
                Ok(Box::new(admitted.into_iter()) as Addrs)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guard(allowed: &[&str]) -> Guard {
        Guard::new(allowed.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn no_address_inside_is_admitted_however_it_is_written() {
        for host in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "203.0.113.7",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "127.1",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::127.0.0.1]",
            "[fe80::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::1]",
            "[2002:7f00:1::]",
            "[2001::1]",
            "[2001:db8::1]",
            "[ff02::1]",
            "[100::1]",
            "[3fff::1]",
        ] {
            let refused = guard(&[]).url(&format!("https://{host}/hook")).unwrap_err();
            assert!(matches!(refused, Refused::Inside(_)), "{host}: {refused}");
        }
        for host in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "[2a00:1450:4001::1]",
            "[::ffff:8.8.8.8]",
            "[64:ff9b::808:808]",
            "example.com",
        ] {
            guard(&[]).url(&format!("https://{host}:8443/hook?key=1")).unwrap();
        }
    }

    #[test]
    fn what_the_operator_allows_is_admitted_also_in_the_clear_and_nothing_else_is() {
        let guard = guard(&["127.0.0.0/8", "fd00::/8"]);
        for url in
            ["http://127.0.0.1:8080/x", "https://[fd00::1]/", "http://[::ffff:127.0.0.1]/", "http://name/"]
        {
            guard.url(url).unwrap();
        }
        assert_eq!(guard.url("http://8.8.8.8/"), Err(Refused::Clear));
        assert!(matches!(guard.url("https://10.0.0.1/"), Err(Refused::Inside(_))));
        assert!(guard.admit("64:ff9b::7f00:1".parse().unwrap(), true).is_ok());
    }

    #[test]
    fn a_url_has_a_form() {
        let refuse = |url: &str| guard(&[]).url(url).unwrap_err();
        for url in [
            "",
            "hook",
            "ftp://example.com/",
            "https://user@example.com/",
            "https://:pw@example.com/",
            "https://example.com/#x",
            "file:///etc/passwd",
            "https://",
        ] {
            assert_eq!(refuse(url), Refused::Form, "{url}");
        }
        assert_eq!(refuse("http://example.com/"), Refused::Clear);
        assert_eq!(refuse(&format!("https://example.com/{}", "x".repeat(2048))), Refused::Length);
    }

    #[tokio::test]
    async fn a_name_leads_to_admitted_addresses_alone() {
        let names = |allowed: &[&str]| guard(allowed).resolver(&"https://localhost/".parse().unwrap());
        for name in ["localhost", "unknown.invalid"] {
            let refused = names(&[]).resolve(name.parse().unwrap()).await.err().unwrap();
            assert_eq!(refused.to_string(), format!("{name} has no address that a webhook may be at"));
        }
        let found = names(&["127.0.0.0/8"]).resolve("localhost".parse().unwrap()).await.unwrap();
        assert!(found.into_iter().all(|address| address.ip().is_loopback()));
    }

    proptest! {
        #[test]
        fn no_address_that_carries_another_is_judged_otherwise_than_that_one(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let guard = guard(&[]);
            let judged = |address: IpAddr| guard.admit(address, false).is_ok();
            let translated = Ipv6Addr::from_bits(0x64_ff9b << 96 | u128::from(bits));
            for other in [address.to_ipv6_mapped(), translated] {
                prop_assert_eq!(judged(address.into()), judged(other.into()));
            }
        }

        #[test]
        fn no_url_panics(url in ".{0,80}") {
            let _ = guard(&["10.0.0.0/8"]).url(&url);
        }
    }
}
