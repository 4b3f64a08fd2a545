//! What `/sys` says of the processors beyond their names: sockets, the highest frequency, the largest
//! cache. What it does not say is not guessed.

use std::{collections::BTreeSet, fs, path::Path};

use aio_protocol::inventory::Cpu;

const PROCESSORS: &str = "sys/devices/system/cpu";

/// `cpu` with what `/sys` says.
pub(super) fn described(root: &Path, cpu: Cpu) -> Cpu {
    let folder = root.join(PROCESSORS);
    let first = folder.join("cpu0");
    let khz: Option<u32> = number(&first.join("cpufreq/cpuinfo_max_freq"));
    Cpu {
        sockets: sockets(&folder),
        max_frequency_mhz: khz.map(|khz| khz / 1000).filter(|mhz| *mhz > 0),
        cache_bytes: largest_cache(&first.join("cache")),
        ..cpu
    }
}

fn sockets(folder: &Path) -> Option<u32> {
    let processors = fs::read_dir(folder).into_iter().flatten().flatten();
    // A kernel without the topology says -1.
    let ids: BTreeSet<u32> =
        processors.filter_map(|it| number(&it.path().join("topology/physical_package_id"))).collect();
    u32::try_from(ids.len()).ok().filter(|count| *count > 0)
}

/// Of the caches that this processor has a share in.
fn largest_cache(folder: &Path) -> Option<u64> {
    let caches = fs::read_dir(folder).into_iter().flatten().flatten();
    caches.filter_map(|cache| size(fs::read_to_string(cache.path().join("size")).ok()?.trim())).max()
}

/// The kernel writes `32768K`.
fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit {
        "" => 1,
        "K" => 1024,
        "M" => 1024 * 1024,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_frequency_and_cache_are_read_where_they_stand() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(PROCESSORS).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let described = || described(root.path(), Cpu { threads: 4, ..Cpu::default() });
        assert_eq!(described(), Cpu { threads: 4, ..Cpu::default() });
        for (processor, socket) in [(0, "0"), (1, "0"), (2, "1"), (3, "1")] {
            write(&format!("cpu{processor}/topology/physical_package_id"), &format!("{socket}\n"));
        }
        write("cpu0/cpufreq/cpuinfo_max_freq", "3700000\n");
        write("cpu0/cache/index0/size", "32K\n");
        write("cpu0/cache/index3/size", "32768K\n");
        let told = described();
        assert_eq!((told.sockets, told.max_frequency_mhz), (Some(2), Some(3700)));
        assert_eq!(told.cache_bytes, Some(32 * 1024 * 1024));
        for processor in 0..4 {
            write(&format!("cpu{processor}/topology/physical_package_id"), "-1\n");
        }
        assert_eq!(described().sockets, None);
        assert_eq!(
            (size("2M"), size("1G"), size("x"), size("99999999999999999999K")),
            (Some(2 << 20), None, None, None)
        );
    }
}
