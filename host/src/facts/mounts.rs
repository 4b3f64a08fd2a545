//! File systems on real devices, from the kernel's own list. Only those are asked for their size: a dead network mount, asked,
//! hangs whoever asks.

use std::{fs, path::Path};

use aio_protocol::inventory::Disk;

/// Without a device under `/dev`, and real.
const POOLED: [&str; 2] = ["zfs", "bcachefs"];

/// Images of something else, full by nature.
const IMAGES: [&str; 4] = ["squashfs", "iso9660", "udf", "erofs"];

pub(super) fn disks() -> Vec<Disk> {
    let list = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts(&list).into_iter().filter_map(disk).collect()
}

fn disk(mount: Mount) -> Option<Disk> {
    let stat = rustix::fs::statvfs(Path::new(&mount.point)).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    (stat.f_blocks > 0).then(|| Disk {
        mount_point: mount.point,
        file_system: mount.file_system,
        total: bytes(stat.f_blocks),
        available: bytes(stat.f_bavail),
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    device: String,
    /// What of the file system is mounted: `/`, or less for a bind mount or a subvolume.
    root: String,
    point: String,
    file_system: String,
}

/// The real file systems in a `mountinfo` list, each at one place: that which shows most of it, and the shortest of those.
fn mounts(list: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for mount in list.lines().filter_map(parse).filter(is_real) {
        let rank = |mount: &Mount| (mount.root.len(), mount.point.len());
        match mounts.iter_mut().find(|other| other.device == mount.device) {
            Some(other) if rank(&mount) < rank(other) => *other = mount,
            Some(_) => {}
            None => mounts.push(mount),
        }
    }
    mounts.sort_by(|one, other| one.point.cmp(&other.point));
    mounts
}

fn is_real(mount: &Mount) -> bool {
    let on_device = mount.device.starts_with("/dev/") && !mount.device.starts_with("/dev/loop");
    let file_system = mount.file_system.as_str();
    (on_device && !IMAGES.contains(&file_system)) || POOLED.contains(&file_system)
}

/// One line of proc_pid_mountinfo(5): `id parent major:minor root point options [tags…] - type source options`.
fn parse(line: &str) -> Option<Mount> {
    let (mount, source) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let mut source = source.split(' ');
    Some(Mount {
        root: unescaped(mount.next()?),
        point: unescaped(mount.next()?),
        file_system: source.next()?.to_owned(),
        device: unescaped(source.next()?),
    })
}

/// The kernel writes white space and backslashes as `\` and three octal digits.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut bytes: Vec<u8> = parts.next().unwrap_or_default().into();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (code, part.get(3..)) {
            (Some(code), Some(rest)) => {
                bytes.push(code);
                bytes.extend(rest.bytes());
            }
            _ => {
                bytes.push(b'\\');
                bytes.extend(part.bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIST: &str = r"22 27 0:21 / /proc rw,relatime - proc proc rw
24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw,size=12334492k
40 27 259:2 /var/data /srv/bind rw shared:9 - ext4 /dev/nvme0n1p2 rw
27 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
41 27 259:2 / /mnt/again rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
50 27 0:44 / /data\040sets\134old rw,relatime shared:30 master:2 - xfs /dev/md0 rw,attr2
51 27 7:3 / /snap/core/1 ro - squashfs /dev/loop3 ro
52 27 0:60 / /mnt/nfs rw - nfs4 10.0.0.1:/export rw,hard
53 27 0:61 / /tank rw - zfs tank rw
54 27 0:62 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw,lowerdir=/dev/x
55 27 0:63 / /run rw - tmpfs tmpfs rw
garbage
";

    #[test]
    fn real_file_systems_are_told_once_and_network_mounts_never() {
        let mounts: Vec<_> = mounts(LIST).into_iter().map(|mount| (mount.point, mount.file_system)).collect();
        let expected = [("/", "ext4"), ("/data sets\\old", "xfs"), ("/tank", "zfs")];
        assert_eq!(mounts, expected.map(|(point, kind)| (point.to_owned(), kind.to_owned())));
    }

    #[test]
    fn this_machines_disks_hold_something() {
        for disk in disks() {
            assert!(disk.total > 0 && disk.available <= disk.total, "{disk:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in ".{0,120}", text in r"[\\0-9a-z é]{0,40}") {
            let _ = parse(&line);
            let _ = unescaped(&text);
        }
    }
}
