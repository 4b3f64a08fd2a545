//! File systems on real devices, from the kernel's own list, each asked for its size with a deadline:
//! a mount whose server or device is dead hangs whoever asks, for ever. One that does not answer is
//! named, and not asked again before it has answered.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel},
    thread,
    time::{Duration, Instant},
};

use aio_protocol::inventory::{Disk, Inodes, SilentMount};

/// How long one mount may take to answer. A local file system needs microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long all may take together. The rest counts as silent, and is asked the next time.
const LONGEST: Duration = Duration::from_secs(3);

/// Stack of a thread that asks: it calls the kernel and nothing else.
const STACK_BYTES: usize = 64 * 1024;

/// Without a device under `/dev`, and real.
const POOLED: [&str; 2] = ["zfs", "bcachefs"];

/// Images of something else, full by nature.
const IMAGES: [&str; 4] = ["squashfs", "iso9660", "udf", "erofs"];

/// Bytes in all, bytes that are available, and the same of inodes; none where there is nothing to tell.
type Sizes = Option<(u64, u64, Option<Inodes>)>;

/// The file systems that answered, and those that did not.
pub(super) type Survey = (Vec<Disk>, Vec<SilentMount>);

/// Asks the mounts of this machine, and remembers which have not answered yet.
#[derive(Debug)]
pub(super) struct Mounts {
    size: fn(&Path) -> Sizes,
    patience: Duration,
    silent: BTreeMap<Mount, Receiver<(Mount, Sizes)>>,
}

impl Default for Mounts {
    fn default() -> Self {
        Self { size, patience: PATIENCE, silent: BTreeMap::new() }
    }
}

impl Mounts {
    /// The machine's file systems as they are now.
    pub(super) fn survey(&mut self) -> Survey {
        self.ask(mounts(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()))
    }

    fn ask(&mut self, mounts: Vec<Mount>) -> Survey {
        let deadline = Instant::now() + LONGEST.max(self.patience);
        self.silent.retain(|mount, _| mounts.contains(mount));
        let mut disks = vec![];
        // Those that have answered in the meantime may be asked again.
        self.silent.retain(|_, answer| matches!(answer.try_recv(), Err(TryRecvError::Empty)));
        let mut rest: Vec<_> =
            mounts.iter().rev().filter(|mount| !self.silent.contains_key(mount)).cloned().collect();
        let mut unasked = vec![];
        while !rest.is_empty() {
            if Instant::now() >= deadline {
                unasked.append(&mut rest);
                break;
            }
            let Ok(answers) = spawn(self.size, rest.clone()) else {
                unasked.append(&mut rest);
                break;
            };
            while let Some(next) = rest.pop() {
                match answers.recv_timeout(self.patience) {
                    Ok((mount, sizes)) => disks.extend(disk(mount, sizes)),
                    Err(RecvTimeoutError::Timeout) => {
                        self.silent.insert(next, answers);
                        break;
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        }
        let is_silent = |mount: &Mount| self.silent.contains_key(mount) || unasked.contains(mount);
        let silent = mounts
            .into_iter()
            .filter(is_silent)
            .map(|mount| SilentMount { mount_point: mount.point, file_system: mount.file_system });
        (disks, silent.collect())
    }
}

/// Asks one mount after the other, the last of `mounts` first, on a thread that ends with the first
/// answer that nobody waits for.
fn spawn(size: fn(&Path) -> Sizes, mut mounts: Vec<Mount>) -> io::Result<Receiver<(Mount, Sizes)>> {
    let (sender, answers) = channel();
    let ask = move || {
        while let Some(mount) = mounts.pop() {
            let sizes = size(Path::new(&mount.point));
            let late = sender.send((mount, sizes)).is_err();
            if late {
                return;
            }
        }
    };
    thread::Builder::new().name("mounts".into()).stack_size(STACK_BYTES).spawn(ask)?;
    Ok(answers)
}

fn size(path: &Path) -> Sizes {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    // Btrfs and others make inodes as they need them, and say that there are none.
    let inodes = Inodes { total: stat.f_files, available: stat.f_favail };
    let inodes = Some(inodes).filter(|inodes| inodes.total > 0);
    (stat.f_blocks > 0).then(|| (bytes(stat.f_blocks), bytes(stat.f_bavail), inodes))
}

fn disk(mount: Mount, sizes: Sizes) -> Option<Disk> {
    let (total, available, inodes) = sizes?;
    let Mount { device, point, file_system, .. } = mount;
    Some(Disk { mount_point: point, file_system, total, available, device: Some(device), inodes })
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Mount {
    device: String,
    /// What of the file system is mounted: `/`, or less for a bind mount or a subvolume.
    root: String,
    point: String,
    file_system: String,
}

/// The real file systems in a `mountinfo` list, each at one place: that which shows most of it, and
/// the shortest of those.
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
    // `/dev/fuse` is the way to a program, and no disk.
    let is_disk = mount.device != "/dev/fuse" && !mount.device.starts_with("/dev/loop");
    let on_device = mount.device.starts_with("/dev/") && is_disk;
    let file_system = mount.file_system.as_str();
    (on_device && !IMAGES.contains(&file_system)) || POOLED.contains(&file_system)
}

/// One line of proc_pid_mountinfo(5): `id parent major:minor root point options [tags…] - type
/// source options`.
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
    use std::sync::{
        Condvar, Mutex,
        atomic::{AtomicU32, Ordering},
    };

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
56 27 0:64 / /etc/pve rw - fuse /dev/fuse rw,user_id=0
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
        for disk in Mounts::default().survey().0 {
            assert!(disk.total > 0 && disk.available <= disk.total, "{disk:?}");
        }
    }

    static RELEASED: Mutex<bool> = Mutex::new(false);
    static HUNG: AtomicU32 = AtomicU32::new(0);
    static CHANGED: Condvar = Condvar::new();

    /// Mounts whose name says so hang until the test lets them answer.
    fn scripted(path: &Path) -> Sizes {
        if path.to_string_lossy().contains("dead") {
            HUNG.fetch_add(1, Ordering::SeqCst);
            drop(CHANGED.wait_while(RELEASED.lock().unwrap(), |released| !*released).unwrap());
        }
        Some((10, 5, None))
    }

    #[test]
    fn a_mount_that_hangs_is_named_and_asked_once_and_the_others_are_told() {
        let list: String = ["a", "dead1", "b", "dead2", "c"]
            .map(|name| format!("1 1 0:1 / /{name} rw - ext4 /dev/{name} rw\n"))
            .concat();
        let mut mounts_of =
            Mounts { size: scripted, patience: Duration::from_millis(100), silent: BTreeMap::new() };
        let mut told = || {
            let (mut disks, silent) = mounts_of.ask(mounts(&list));
            disks.sort_by(|one, other| one.mount_point.cmp(&other.mount_point));
            let disks: Vec<_> = disks.into_iter().map(|disk| disk.mount_point).collect();
            let silent: Vec<_> = silent.into_iter().map(|mount| mount.mount_point).collect();
            (disks.join(" "), silent.join(" "))
        };
        for _ in 0..3 {
            assert_eq!(told(), ("/a /b /c".to_owned(), "/dead1 /dead2".to_owned()));
        }
        assert_eq!(HUNG.load(Ordering::SeqCst), 2, "a thread that hangs is not joined by another");
        *RELEASED.lock().unwrap() = true;
        CHANGED.notify_all();
        let deadline = Instant::now() + Duration::from_secs(20);
        while told() != ("/a /b /c /dead1 /dead2".to_owned(), String::new()) {
            assert!(Instant::now() < deadline, "what answers again is told again");
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
