//! A version's folder as `cargo xtask release` writes one, made here of what is built, in a moment.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use aio_protocol::release::{
    Checksum, Platform,
    folder::{FileEntry, FolderManifest, MANIFEST, Needs, SUMS},
};
use anyhow::{Result, ensure};

use crate::artifacts::{Artifacts, INSTALLER_FILE, VERSION, WORKER_FILE};

/// The commit that the manifest names: nobody's.
pub const COMMIT: &str = "0000000000000000000000000000000000000000";

/// Writes the folder into `tree`, in place of one that is there, and says where it lies: with
/// `worker` as the worker, the built installer, and `packages`. `sign` gets the folder and the name
/// of each file that is signed by itself.
pub fn write(
    artifacts: &Artifacts,
    tree: &Path,
    worker: &[u8],
    packages: &[PathBuf],
    sign: impl Fn(&Path, &str) -> Result<()>,
) -> Result<PathBuf> {
    write_as(artifacts, tree, VERSION, worker, packages, |_| Ok(()), sign)
}

/// The same as another version, with files that `edit` changes before anything is said of them.
pub fn write_as(
    artifacts: &Artifacts,
    tree: &Path,
    version: &str,
    worker: &[u8],
    packages: &[PathBuf],
    edit: impl FnOnce(&Path) -> Result<()>,
    sign: impl Fn(&Path, &str) -> Result<()>,
) -> Result<PathBuf> {
    let place = tree.join(version);
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::create_dir_all(&place)?;
    fs::write(place.join(WORKER_FILE), worker)?;
    fs::copy(artifacts.installer()?, place.join(INSTALLER_FILE))?;
    for file in units()?.iter().chain(packages) {
        fs::copy(file, place.join(file.file_name().unwrap_or_default()))?;
    }
    edit(&place)?;
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(&place)? {
        let entry = entry?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), described(&entry.path())?);
    }
    for name in [WORKER_FILE, INSTALLER_FILE] {
        sign(&place, name)?;
    }
    let manifest = FolderManifest {
        version: version.parse()?,
        commit: COMMIT.to_owned(),
        committed_at: "2025-12-11T12:00:00Z".parse()?,
        rust: "1.95.0".to_owned(),
        release_key: None,
        platforms: [(Platform::LinuxAmd64, Needs { glibc: "2.31".to_owned() })].into(),
        files,
    };
    fs::write(place.join(MANIFEST), serde_json::to_vec_pretty(&manifest)?)?;
    let sums = Command::new("sh").args(["-c", "sha256sum -- *"]).current_dir(&place).output()?;
    ensure!(sums.status.success(), "{}", String::from_utf8_lossy(&sums.stderr));
    fs::write(place.join(SUMS), sums.stdout)?;
    sign(&place, SUMS)?;
    Ok(place)
}

/// The worker's units, as a release carries them.
fn units() -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
    let paths = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let is_worker_s = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("aio-worker") && !name.ends_with(".conf")
    };
    Ok(paths.into_iter().filter(is_worker_s).collect())
}

fn described(file: &Path) -> Result<FileEntry> {
    let sum = Command::new("sha256sum").arg(file).output()?;
    let digits = String::from_utf8(sum.stdout)?;
    let digits = digits.split(' ').next().unwrap_or_default();
    Ok(FileEntry { size: file.metadata()?.len(), sha256: Checksum::from_hex(digits)? })
}
