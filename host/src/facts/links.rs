//! Which network interfaces are told, and in which order. A host of containers has a virtual link for
//! each of them; they come and go, and say nothing about the machine. Decides by what `/sys/class/net`
//! says, and tells what it says of each; reads no address.

use std::{fs, path::Path};

use aio_protocol::inventory::NetworkInterface;

use super::routes;

const CLASS: &str = "sys/class/net";

/// The kind of a link, the first to be told first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A device of this machine, virtual hardware included.
    Device,
    /// Bridges, bonds, VLANs, tunnels and dummies.
    Virtual,
    /// One end of a pair whose other end is elsewhere: a container's or a virtual machine's.
    Pair,
}

/// The links to tell, and how many are not: devices with addresses, devices, and other links with
/// addresses of their own. Pairs are told only where there is no device, as inside a container.
pub(super) fn told(root: &Path, links: Vec<NetworkInterface>) -> (Vec<NetworkInterface>, u32) {
    let all = links.len();
    let mut ranked: Vec<_> = links
        .into_iter()
        .map(|mut link| {
            // The addresses that others can use first, should the rest be cut.
            link.addresses.sort_by_cached_key(|address| (is_link_local(address), address.clone()));
            let addressed = link.addresses.first().is_some_and(|first| !is_link_local(first));
            (kind(root, &link.name), !addressed, link)
        })
        .collect();
    let devices = ranked.iter().any(|(kind, ..)| *kind == Kind::Device);
    ranked.retain(|(kind, unaddressed, _)| match kind {
        Kind::Device => true,
        Kind::Virtual => !unaddressed,
        Kind::Pair => !unaddressed && !devices,
    });
    ranked.sort_by(|(kind, unaddressed, link), (other, other_unaddressed, other_link)| {
        (kind, unaddressed, &link.name).cmp(&(other, other_unaddressed, &other_link.name))
    });
    let routes = routes::defaults(root);
    let told: Vec<_> = ranked
        .into_iter()
        .map(|(kind, _, link)| NetworkInterface {
            route: routes.get(&link.name).cloned(),
            is_virtual: Some(kind != Kind::Device),
            ..described(root, link)
        })
        .collect();
    let left_out = all.saturating_sub(told.len()).try_into().unwrap_or(u32::MAX);
    (told, left_out)
}

fn kind(root: &Path, name: &str) -> Kind {
    let folder = root.join(CLASS).join(name);
    let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default().trim().to_owned();
    if folder.join("device").exists() {
        return Kind::Device;
    }
    // A kernel without /sys says nothing: better one link too many.
    let (own, other) = (read("ifindex"), read("iflink"));
    let is_tap = read("tun_flags").strip_prefix("0x").and_then(|flags| u32::from_str_radix(flags, 16).ok());
    let named = read("uevent").lines().any(|line| line.starts_with("DEVTYPE="));
    // IFF_TAP of <linux/if_tun.h>.
    if (own != other && !named) || is_tap.is_some_and(|flags| flags & 2 != 0) {
        Kind::Pair
    } else {
        Kind::Virtual
    }
}

/// The link with what the kernel says of it. A link that is down says neither speed nor duplex.
fn described(root: &Path, link: NetworkInterface) -> NetworkInterface {
    let folder = root.join(CLASS).join(&link.name);
    let read = |file: &str| Some(fs::read_to_string(folder.join(file)).ok()?.trim().to_owned());
    let one_of = |file: &str, words: &[&str]| read(file).filter(|word| words.contains(&word.as_str()));
    let vlan = fs::read_to_string(root.join("proc/net/vlan").join(&link.name)).ok();
    // A device that does not know its speed says -1, or 65535 where it has 16 bits for it.
    let speed =
        read("speed").and_then(|speed| speed.parse().ok()).filter(|speed| ![0, 65_535].contains(speed));
    NetworkInterface {
        kind: kind_in_words(&folder, &read("uevent").unwrap_or_default(), read("type").as_deref()),
        state: one_of("operstate", &["up", "down"]),
        mtu: read("mtu").and_then(|mtu| mtu.parse().ok()),
        speed_mbps: speed,
        duplex: one_of("duplex", &["full", "half"]),
        vlan_id: vlan.as_deref().and_then(vlan_id),
        parent: vlan.as_deref().and_then(vlan_parent).or_else(|| master(&folder)),
        ..link
    }
}

fn kind_in_words(folder: &Path, uevent: &str, number: Option<&str>) -> Option<String> {
    let named = uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE="));
    let word = match (named, number?) {
        (Some(named), _) => named,
        _ if folder.join("tun_flags").exists() => "tun",
        // ARPHRD_ETHER and ARPHRD_INFINIBAND of <linux/if_arp.h>.
        (None, "1") => "ethernet",
        (None, "32") => "infiniband",
        _ => return None,
    };
    Some(word.to_owned())
}

/// `/proc/net/vlan/NAME` begins with `NAME  VID: 7`, and has a line `Device: eth0`.
fn vlan_id(text: &str) -> Option<u32> {
    text.split_once("VID:")?.1.split_whitespace().next()?.parse().ok()
}

fn vlan_parent(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("Device:")).map(|name| name.trim().to_owned())
}

/// The bond or bridge that the link belongs to.
fn master(folder: &Path) -> Option<String> {
    Some(fs::read_link(folder.join("master")).ok()?.file_name()?.to_str()?.to_owned())
}

fn is_link_local(address: &str) -> bool {
    address.starts_with("fe80:") || address.starts_with("169.254.")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Links as `/sys` shows them: name, whether it is a device, index of its other end, `DEVTYPE`.
    fn bench(links: &[(&str, bool, u32, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (index, (name, device, other, kind)) in links.iter().enumerate() {
            let folder = root.path().join(CLASS).join(name);
            fs::create_dir_all(&folder).unwrap();
            if *device {
                fs::create_dir(folder.join("device")).unwrap();
            }
            let other = if *other == 0 { index + 1 } else { *other as usize };
            fs::write(folder.join("ifindex"), format!("{}\n", index + 1)).unwrap();
            fs::write(folder.join("iflink"), format!("{other}\n")).unwrap();
            fs::write(folder.join("uevent"), format!("INTERFACE={name}\n{kind}\n")).unwrap();
        }
        root
    }

    fn link(name: &str, addresses: &[&str]) -> NetworkInterface {
        let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
        NetworkInterface { name: name.to_owned(), addresses, ..NetworkInterface::default() }
    }

    fn names(links: &[NetworkInterface]) -> Vec<&str> {
        links.iter().map(|link| link.name.as_str()).collect()
    }

    #[test]
    fn devices_come_first_and_the_ends_of_containers_links_are_counted() {
        let root = bench(&[
            ("cali1", false, 90, ""),
            ("docker0", false, 0, "DEVTYPE=bridge"),
            ("br0", false, 0, "DEVTYPE=bridge"),
            ("eth1", true, 0, ""),
            ("eth0", true, 0, ""),
            ("vlan7", false, 5, "DEVTYPE=vlan"),
            ("veth1", false, 91, ""),
        ]);
        let links = vec![
            link("br0", &["fe80::1/64"]),
            link("cali1", &["10.4.0.1/32"]),
            link("docker0", &["172.17.0.1/16"]),
            link("eth0", &["fe80::2/64", "10.0.0.7/24"]),
            link("eth1", &[]),
            link("veth1", &["fe80::3/64"]),
            link("vlan7", &["10.7.0.1/24"]),
        ];
        let (told, left_out) = told(root.path(), links);
        assert_eq!(names(&told), ["eth0", "eth1", "docker0", "vlan7"]);
        assert_eq!(told[0].addresses, ["10.0.0.7/24", "fe80::2/64"]);
        assert_eq!(left_out, 3);
    }

    #[test]
    fn each_link_says_what_the_kernel_knows_of_it() {
        let root =
            bench(&[("eth0", true, 0, ""), ("eth0.7", false, 1, "DEVTYPE=vlan"), ("ib0", true, 0, "")]);
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (file, eth, ib) in [
            ("type", "1", "32"),
            ("operstate", "up", "down"),
            ("mtu", "9000", "2044"),
            ("speed", "100000", "-1"),
            ("duplex", "full", "unknown"),
        ] {
            write(&format!("{CLASS}/eth0/{file}"), &format!("{eth}\n"));
            write(&format!("{CLASS}/ib0/{file}"), &format!("{ib}\n"));
        }
        write(&format!("{CLASS}/eth0.7/type"), "1\n");
        write("proc/net/vlan/eth0.7", "eth0.7  VID: 7\t REORDER_HDR: 1\nDevice: eth0\n");
        write("proc/net/route", "eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n");
        std::os::unix::fs::symlink("../bond0", root.path().join(CLASS).join("ib0/master")).unwrap();
        let links = vec![link("eth0", &["10.0.0.7/24"]), link("eth0.7", &["10.7.0.1/24"]), link("ib0", &[])];
        let (told, _) = told(root.path(), links);
        let [eth, ib, vlan] = &told[..] else { panic!("{told:?}") };
        assert_eq!(
            (eth.kind.as_deref(), ib.kind.as_deref(), vlan.kind.as_deref()),
            (Some("ethernet"), Some("infiniband"), Some("vlan"))
        );
        assert_eq!(
            (eth.state.as_deref(), ib.state.as_deref(), vlan.state.as_deref()),
            (Some("up"), Some("down"), None)
        );
        // 100 Gbit/s is more than 16 bits hold.
        assert_eq!(
            (eth.mtu, eth.speed_mbps, eth.duplex.as_deref()),
            (Some(9000), Some(100_000), Some("full"))
        );
        assert_eq!((ib.mtu, ib.speed_mbps, ib.duplex.as_deref()), (Some(2044), None, None));
        assert_eq!((eth.is_virtual, vlan.is_virtual), (Some(false), Some(true)));
        assert_eq!(
            (vlan.vlan_id, vlan.parent.as_deref(), ib.parent.as_deref()),
            (Some(7), Some("eth0"), Some("bond0"))
        );
        assert_eq!(eth.route.as_ref().and_then(|route| route.gateway.as_deref()), Some("10.0.0.1"));
        assert_eq!(vlan.route, None);
    }

    #[test]
    fn inside_a_container_its_own_end_is_the_network() {
        let root = bench(&[("eth0", false, 90, "")]);
        let (told, left_out) = told(root.path(), vec![link("eth0", &["10.4.0.9/24"])]);
        assert_eq!((names(&told), left_out), (vec!["eth0"], 0));
    }

    #[test]
    fn containers_that_come_and_go_change_nothing_but_the_count() {
        let mut links = vec![("eth0", true, 0, "")];
        let names: Vec<_> = (0..700).map(|number| format!("veth{number}")).collect();
        links.extend(names.iter().map(|name| (name.as_str(), false, 900, "")));
        let root = bench(&links);
        let with = |count: usize| {
            let pairs = names.iter().take(count).map(|name| link(name, &["fe80::1/64"]));
            told(root.path(), pairs.chain([link("eth0", &["10.0.0.7/24"])]).collect())
        };
        assert_eq!(with(700), (with(1).0, 700));
    }
}
