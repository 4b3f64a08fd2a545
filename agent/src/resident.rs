//! Lets go of what only the start needed of the program's own file. Linux maps sixteen pages around each that
//! is read, and the start reads most of the program: at rest nearly all of that lies in this process's memory
//! for nothing. What is needed again comes from the page cache.

use std::{fs, io, ops::Range, os::unix::ffi::OsStrExt, ptr, time::Duration};

use aio_protocol::snapshot::WorkerSnapshot;
use rustix::mm::{Advice, madvise};
use tokio::{sync::watch, time::sleep};
use tracing::debug;

/// So long after a welcome all that came with it is done: the first readings, the answers, a look at updates.
const SETTLING: Duration = Duration::from_secs(15);

/// Lets go of it some time after each welcome, for ever.
pub(crate) async fn let_go_at_rest(mut latest: watch::Receiver<WorkerSnapshot>) {
    let mut known = 0;
    while let Ok(sessions) =
        latest.wait_for(|now| now.session.sessions > known).await.map(|now| now.session.sessions)
    {
        known = sessions;
        sleep(SETTLING).await;
        if let Err(error) = let_go() {
            debug!(%error, "the program stays in memory as a whole");
            return;
        }
    }
}

/// Takes the program's unwritten parts out of this process's memory.
fn let_go() -> io::Result<()> {
    let program = fs::read_link("/proc/self/exe")?;
    let maps = fs::read("/proc/self/maps")?;
    for part in unwritten(&maps, program.as_os_str().as_bytes()) {
        #[expect(unsafe_code, reason = "the file has all that was there, for nothing was ever written to it")]
        unsafe {
            madvise(ptr::with_exposed_provenance_mut(part.start), part.len(), Advice::LinuxDontNeed)?;
        }
    }
    Ok(())
}

/// Where parts of `program` lie that nobody has written to: its text, and the constants that its file begins
/// with. Other constants were written to before they were closed: addresses were put into them.
fn unwritten(maps: &[u8], program: &[u8]) -> Vec<Range<usize>> {
    let part = |line: &[u8]| {
        let words = str::from_utf8(line.strip_suffix(program)?).ok()?;
        let words: Vec<_> = words.split_ascii_whitespace().collect();
        let &[place, rights, offset, _device, _inode] = words.as_slice() else { return None };
        let unwritten = rights == "r-xp" || (rights == "r--p" && offset.bytes().all(|digit| digit == b'0'));
        let (start, end) = place.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        unwritten.then_some(start..end)
    };
    maps.split(|byte| *byte == b'\n').filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55e0c0000000-55e0c024d000 r--p 00000000 fe:00 42                         /opt/my tools/aio-worker (deleted)
55e0c024d000-55e0c0906000 r-xp 0024c000 fe:00 42                         /opt/my tools/aio-worker (deleted)
55e0c0906000-55e0c093a000 r--p 00904000 fe:00 42                         /opt/my tools/aio-worker (deleted)
55e0c093a000-55e0c0940000 rw-p 00937000 fe:00 42                         /opt/my tools/aio-worker (deleted)
55e0c1000000-55e0c1033000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000100000 r-xp 00026000 fe:00 7                          /usr/lib/x86_64-linux-gnu/libc.so.6
7f0000200000-7f0000300000 r-xp 00026000 fe:00 8                          /mnt /opt/my tools/aio-worker (deleted)
7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0                          [vdso]
";

    #[test]
    fn what_may_have_been_written_to_and_what_is_no_part_of_the_program_stays() {
        let parts = unwritten(MAPS.as_bytes(), b"/opt/my tools/aio-worker (deleted)");
        assert_eq!(parts, [0x55e0c0000000..0x55e0c024d000, 0x55e0c024d000..0x55e0c0906000]);
        assert!(unwritten(MAPS.as_bytes(), b"/opt/other").is_empty());
    }

    #[test]
    fn a_program_that_let_go_of_itself_goes_on_with_less() {
        let resident = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let kib =
                status.lines().find_map(|line| line.strip_prefix("RssFile:")?.trim().strip_suffix(" kB"));
            kib.unwrap().trim().parse::<u64>().unwrap()
        };
        let before = resident();
        let_go().unwrap();
        let after = resident();
        assert!(after < before, "{before} KiB before, {after} after");
    }
}
