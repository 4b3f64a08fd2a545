//! Ways out of the machine and its name servers, as the kernel and the resolver's files list them.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use aio_protocol::inventory::DefaultRoute;

/// `RTF_REJECT` of <linux/route.h>: a way that leads nowhere.
const REJECT: u32 = 0x200;

/// What the resolver really asks, then what programs read: on most machines that names a stub.
const RESOLVERS: [&str; 2] = ["run/systemd/resolve/resolv.conf", "etc/resolv.conf"];

const MOST_NAME_SERVERS: usize = 8;

/// The preferred way out through each interface that has one: IPv4 before IPv6.
pub(super) fn defaults(root: &Path) -> BTreeMap<String, DefaultRoute> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let mut routes = BTreeMap::new();
    let (v4, v6) = (read("proc/net/route"), read("proc/net/ipv6_route"));
    let mut found: Vec<_> = v4.lines().filter_map(v4_default).collect();
    found.sort_by_key(|(_, route)| route.metric);
    let mut later: Vec<_> = v6.lines().filter_map(v6_default).collect();
    later.sort_by_key(|(_, route)| route.metric);
    for (name, route) in found.into_iter().chain(later) {
        routes.entry(name).or_insert(route);
    }
    routes
}

/// A line of `/proc/net/route`: addresses are hexadecimal, in the processor's own order.
fn v4_default(line: &str) -> Option<(String, DefaultRoute)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [name, to, gateway, flags, _, _, metric, mask, ..] = words[..] else { return None };
    let is_default = to == "00000000" && mask == "00000000";
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let gateway = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
    let metric = metric.parse().ok()?;
    (is_default && flags & REJECT == 0).then(|| (name.to_owned(), route(gateway.into(), metric)))
}

/// A line of `/proc/net/ipv6_route`: addresses are hexadecimal, as they are sent.
fn v6_default(line: &str) -> Option<(String, DefaultRoute)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [to, length, _, _, gateway, metric, _, _, flags, name] = words[..] else { return None };
    let is_default = length == "00" && to.bytes().all(|digit| digit == b'0');
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let gateway = Ipv6Addr::from(u128::from_str_radix(gateway, 16).ok()?);
    let metric = u32::from_str_radix(metric, 16).ok()?;
    let leads_out = flags & REJECT == 0 && name != "lo";
    (is_default && leads_out).then(|| (name.to_owned(), route(gateway.into(), metric)))
}

fn route(gateway: IpAddr, metric: u32) -> DefaultRoute {
    let gateway = (!gateway.is_unspecified()).then(|| gateway.to_string());
    DefaultRoute { gateway, metric }
}

/// Addresses of the name servers; a stub on this machine is none.
pub(super) fn name_servers(root: &Path) -> Vec<String> {
    let read = |file: &str| {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
        let addresses = named.filter_map(|rest| rest.split_whitespace().next()).filter(|address| {
            let bare = address.split('%').next().unwrap_or(address);
            bare.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback())
        });
        addresses.take(MOST_NAME_SERVERS).map(str::to_owned).collect::<Vec<_>>()
    };
    RESOLVERS.into_iter().map(read).find(|found| !found.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth1\t00000000\tFE01A8C0\t0003\t0\t0\t200\t00000000\t0\t0\t0
eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t00000000\t0200000A\t0003\t0\t0\t300\t00000000\t0\t0\t0
eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
wg0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
";

    const V6: &str = "\
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     ib0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000002 00000400 00000001 00000000 00000003    eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200      lo
";

    fn bench(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_preferred_way_out_of_each_interface_is_told() {
        let root = bench(&[("proc/net/route", V4), ("proc/net/ipv6_route", V6)]);
        let told = defaults(root.path());
        let words: Vec<_> = told
            .iter()
            .map(|(name, route)| (name.as_str(), route.gateway.as_deref().unwrap(), route.metric))
            .collect();
        // Little-endian processors write addresses backwards, and all that we ship for are.
        assert_eq!(
            words,
            [("eth0", "10.0.0.1", 100), ("eth1", "192.168.1.254", 200), ("ib0", "fe80::1", 1024)]
        );
        assert!(defaults(tempfile::tempdir().unwrap().path()).is_empty());
    }

    #[test]
    fn name_servers_are_those_behind_a_stub() {
        let stub = ("etc/resolv.conf", "# a stub\nnameserver 127.0.0.53\noptions edns0\n");
        let behind = (
            "run/systemd/resolve/resolv.conf",
            "nameserver 10.0.0.2\n nameserver fe80::1%eth0\nnameserver x\n",
        );
        assert_eq!(name_servers(bench(&[stub, behind]).path()), ["10.0.0.2", "fe80::1%eth0"]);
        assert_eq!(name_servers(bench(&[stub]).path()), [""; 0]);
        assert_eq!(name_servers(bench(&[("etc/resolv.conf", "nameserver 8.8.8.8")]).path()), ["8.8.8.8"]);
    }
}
