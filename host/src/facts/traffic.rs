//! What was read from the disks and written to them, and how much of memory holds copies of files. Disks
//! count, and neither their partitions nor what is made of them, so that nothing is counted twice.

use std::{fs, path::Path};

use aio_protocol::telemetry::DiskTraffic;

/// The kernel counts in these, whatever the device's own are.
const SECTOR_BYTES: u64 = 512;

/// Traffic of all disks since the machine booted.
pub(super) fn disks(root: &Path) -> Option<DiskTraffic> {
    let lines = fs::read_to_string(root.join("proc/diskstats")).ok()?;
    let mut counted = None;
    for line in lines.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, _, name, _, _, read, _, _, _, written, ..] = words[..] else { continue };
        // Partitions have no folder there; what has no device is made of others.
        let is_disk = root.join("sys/block").join(name).join("device").exists();
        let (true, Ok(read), Ok(written)) = (is_disk, read.parse::<u64>(), written.parse::<u64>()) else {
            continue;
        };
        let sum: &mut DiskTraffic = counted.get_or_insert_default();
        sum.read_bytes = sum.read_bytes.saturating_add(read.saturating_mul(SECTOR_BYTES));
        sum.written_bytes = sum.written_bytes.saturating_add(written.saturating_mul(SECTOR_BYTES));
    }
    counted
}

/// Bytes of memory that hold copies of files.
pub(super) fn cached(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Cached:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_count_and_neither_their_parts_nor_what_is_made_of_them() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(disks(root.path()), None);
        fs::create_dir_all(root.path().join("proc")).unwrap();
        for name in ["nvme0n1/device", "sda/device", "dm-0", "loop0"] {
            fs::create_dir_all(root.path().join("sys/block").join(name)).unwrap();
        }
        let line =
            |name: &str, read: u64, written: u64| format!(" 8 0 {name} 9 9 {read} 9 9 9 {written} 9 0 9 9\n");
        let stats = ["nvme0n1", "nvme0n1p1", "sda", "dm-0", "loop0"].map(|name| line(name, 10, 20)).concat();
        fs::write(root.path().join("proc/diskstats"), stats + "junk\n").unwrap();
        assert_eq!(disks(root.path()), Some(DiskTraffic { read_bytes: 10_240, written_bytes: 20_480 }));
    }

    #[test]
    fn cached_memory_is_in_bytes() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc")).unwrap();
        let text = "MemTotal:  100 kB\nSwapCached:  7 kB\nCached:     12 kB\n";
        fs::write(root.path().join("proc/meminfo"), text).unwrap();
        assert_eq!(cached(root.path()), Some(12 * 1024));
    }
}
