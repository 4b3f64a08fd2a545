//! Which network interfaces are told, and in which order. A host of containers has a virtual link for
//! each of them; they come and go, and say nothing about the machine. Decides by what `/sys/class/net`
//! says; reads no address.

use std::{fs, path::Path};

use aio_protocol::inventory::NetworkInterface;

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
    let told: Vec<_> = ranked.into_iter().map(|(.., link)| link).collect();
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
        NetworkInterface { name: name.to_owned(), mac_address: String::new(), addresses }
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
