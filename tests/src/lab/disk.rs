//! A machine's disk as a device that loses its power: an ext4 image whose file lies on an XFS that
//! copies it in one moment. Such a copy holds what the machine's kernel has written back by then,
//! and nothing of what it still keeps in memory.
//!
//! Both are mounted in the machine's own namespace, by its first process, and go with it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Size of the machine's disk, sparse.
const DISK_BYTES: u64 = 1024 * 1024 * 1024;
/// Size of the device that holds the disk and its copies, sparse: copies share what is equal.
const DEVICE_BYTES: u64 = 8 * DISK_BYTES;

/// The disk that a fresh machine boots from.
const FIRST: &str = "first";

/// A machine's disk and its copies.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Makes an empty disk in a machine's folder.
    pub(super) fn format(folder: &Path) -> Result<Self> {
        for mount_point in ["copies", "disk"] {
            fs::create_dir(folder.join(mount_point))?;
        }
        let device = folder.join("device");
        File::create_new(&device)?.set_len(DEVICE_BYTES)?;
        run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&device))?;
        let disk = Self { folder: folder.to_owned() };
        let first = format!(
            r#"mount -o loop "$1" "$2" && truncate --size={DISK_BYTES} "$2/{FIRST}" && mkfs.ext4 -q "$2/{FIRST}""#
        );
        let copies = folder.join("copies");
        run(Command::new("unshare").args(["--mount", "sh", "-euc", &first, "sh"]).arg(&device).arg(copies))?;
        disk.next_boot(FIRST)?;
        Ok(disk)
    }

    /// Copies what the machine runs on. `process` is one in its mount namespace.
    pub(super) fn copy(&self, process: u32, copy: &str) -> Result<()> {
        let copies = PathBuf::from(format!("/proc/{process}/root{}/copies", self.folder.display()));
        let running = fs::read_to_string(self.boot_from())?;
        run(Command::new("cp").arg("--reflink=always").arg(copies.join(running)).arg(copies.join(copy)))
    }

    /// Names the copy that the machine boots from next.
    pub(super) fn next_boot(&self, copy: &str) -> Result<()> {
        fs::write(self.boot_from(), copy).context("cannot say what to boot from")
    }

    fn boot_from(&self) -> PathBuf {
        self.folder.join("boot-from")
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
