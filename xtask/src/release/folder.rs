//! The folder of a version: its files, `manifest.json`, `SHA256SUMS` and the signatures. It is made
//! under another name and renamed when it is whole; what lies in one is never changed, but that a
//! platform is added to it, which is a rename, too.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use aio_protocol::release::{
    Checksum, Platform, ReleaseVersion,
    folder::{FileEntry, FolderManifest, MANIFEST, Needs, SIGNATURE_SUFFIX, SUMS, is_file_name, write_sums},
    label,
};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha2::{Digest, Sha256};

use super::{key::Key, program, source::Source};

/// A file of the folder, complete.
pub(super) struct File {
    name: String,
    bytes: Vec<u8>,
    mode: u32,
    /// The oldest C library that it runs with, of a program: it is also signed by itself, for
    /// installers, which fetch nothing else.
    glibc: Option<(u32, u32)>,
}

impl File {
    pub(super) fn program(name: String, path: &Path, platform: Platform) -> Result<Self> {
        let glibc = program::glibc(path, platform)?;
        Ok(Self { name, bytes: read(path)?, mode: 0o755, glibc: Some(glibc) })
    }

    /// A program that nodes do not fetch: the sums alone vouch for it.
    pub(super) fn unsigned_program(name: String, path: &Path, platform: Platform) -> Result<Self> {
        program::glibc(path, platform)?;
        Ok(Self { name, bytes: read(path)?, mode: 0o755, glibc: None })
    }

    pub(super) fn text(name: String, text: String) -> Self {
        Self { name, bytes: text.into_bytes(), mode: 0o644, glibc: None }
    }

    pub(super) fn copy(path: &Path) -> Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| is_file_name(name));
        let name = name.with_context(|| format!("{} cannot be in a release by this name", path.display()))?;
        Ok(Self { name: name.to_owned(), bytes: read(path)?, mode: 0o644, glibc: None })
    }
}

/// What one run brings.
pub(super) struct Contents<'a> {
    pub(super) version: ReleaseVersion,
    pub(super) source: &'a Source,
    pub(super) key: &'a Key,
    pub(super) platform: Platform,
    /// The compiler's version.
    pub(super) rust: String,
    pub(super) files: Vec<File>,
}

/// Fails early where `write` would fail late.
pub(super) fn ensure_room(output: &Path, version: &ReleaseVersion, add: bool) -> Result<()> {
    let folder = output.join(version.to_string());
    match (folder.exists(), add) {
        (true, false) => bail!(
            "{} is there already, and a release never changes: raise the version, or name another --output \
             (--add adds another platform of the same commit)",
            folder.display()
        ),
        (false, true) => bail!("there is no {} to add to: leave --add out", folder.display()),
        _ => Ok(()),
    }
}

/// Writes the folder into `output`, or adds a platform to the one that is there, and says where it lies.
pub(super) fn write(contents: Contents<'_>, output: &Path, add: bool) -> Result<PathBuf> {
    let folder = output.join(contents.version.to_string());
    ensure_room(output, &contents.version, add)?;
    fs::create_dir_all(output).with_context(|| format!("cannot create {}", output.display()))?;
    // In the same file system, hidden from whoever serves the tree, and gone again if anything fails.
    let unfinished = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(output);
    let unfinished = unfinished.with_context(|| format!("cannot create a folder in {}", output.display()))?;
    let place = unfinished.path();
    set_mode(place, 0o755)?;

    let mut manifest = manifest(&contents);
    let mut programs = Vec::new();
    for file in &contents.files {
        put(place, &file.name, &file.bytes, file.mode)?;
        programs.extend(file.glibc.is_some().then_some(&file.name));
    }
    if add {
        merge(&mut manifest, &folder, place, contents.key)?;
    }
    for name in programs {
        contents.key.sign(&place.join(name), &label::comment(&contents.version, name))?;
    }
    let text = serde_json::to_string_pretty(&manifest).context("the manifest cannot be written as JSON")?;
    put(place, MANIFEST, format!("{text}\n").as_bytes(), 0o644)?;
    put(place, SUMS, write_sums(&sums(place)?).as_bytes(), 0o644)?;
    contents.key.sign(&place.join(SUMS), &label::comment(&contents.version, SUMS))?;
    sync(place)?;

    let flags = if add { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    renameat_with(CWD, place, CWD, &folder, flags)
        .with_context(|| format!("cannot put {} in place", folder.display()))?;
    if !add {
        // It has its place now; with `add`, the folder from before lies here, and goes.
        let _ = unfinished.keep();
    }
    Ok(folder)
}

fn manifest(contents: &Contents<'_>) -> FolderManifest {
    let newest = contents.files.iter().filter_map(|file| file.glibc).max().unwrap_or_default();
    let needs = Needs { glibc: format!("{}.{}", newest.0, newest.1) };
    let entry = |file: &File| (file.name.clone(), entry(&file.bytes));
    FolderManifest {
        version: contents.version.clone(),
        commit: contents.source.commit().to_owned(),
        committed_at: contents.source.committed_at(),
        rust: contents.rust.clone(),
        release_key: contents.key.public().map(str::to_owned),
        platforms: BTreeMap::from([(contents.platform, needs)]),
        files: contents.files.iter().map(entry).collect(),
    }
}

/// Takes over what another machine has written of the same commit.
fn merge(manifest: &mut FolderManifest, folder: &Path, place: &Path, key: &Key) -> Result<()> {
    let text = read(&folder.join(MANIFEST))?;
    let there: FolderManifest = serde_json::from_slice(&text)
        .with_context(|| format!("cannot read {MANIFEST} of {}", folder.display()))?;
    for (what, ours, theirs) in [
        ("version", &manifest.version.to_string(), &there.version.to_string()),
        ("commit", &manifest.commit, &there.commit),
        ("Rust", &manifest.rust, &there.rust),
        (
            "release key",
            manifest.release_key.as_ref().unwrap_or(&String::new()),
            there.release_key.as_ref().unwrap_or(&String::new()),
        ),
    ] {
        ensure!(ours == theirs, "this is {what} `{ours}`, and {} was made with `{theirs}`", folder.display());
    }
    let signed = folder.join(format!("{SUMS}{SIGNATURE_SUFFIX}")).exists();
    ensure!(!signed || key.signs(), "{} is signed, so what is added must be: give --key", folder.display());
    for platform in manifest.platforms.keys() {
        ensure!(!there.platforms.contains_key(platform), "{} has {platform} already", folder.display());
    }
    for (name, said) in there.files {
        let bytes = read(&folder.join(&name))?;
        ensure!(entry(&bytes) == said, "{} is not what {MANIFEST} says of it", folder.join(&name).display());
        if manifest.files.get(&name).is_some_and(|ours| *ours != said) {
            bail!("{} is another than this machine has made", folder.join(&name).display());
        }
        let mode = fs::metadata(folder.join(&name)).map(|it| it.permissions().mode() & 0o777);
        put(place, &name, &bytes, mode.context("cannot read a file's rights")?)?;
        let signature = format!("{name}{SIGNATURE_SUFFIX}");
        if folder.join(&signature).exists() {
            put(place, &signature, &read(&folder.join(&signature))?, 0o644)?;
        }
        manifest.files.insert(name, said);
    }
    manifest.platforms.extend(there.platforms);
    Ok(())
}

/// The sums of all that lies in `place`.
fn sums(place: &Path) -> Result<BTreeMap<String, Checksum>> {
    let mut sums = BTreeMap::new();
    for entry in fs::read_dir(place).with_context(|| format!("cannot read {}", place.display()))? {
        let name = entry.with_context(|| format!("cannot read {}", place.display()))?.file_name();
        let name = name.to_str().context("a file's name is no text")?;
        sums.insert(name.to_owned(), checksum(&read(&place.join(name))?));
    }
    Ok(sums)
}

fn entry(bytes: &[u8]) -> FileEntry {
    FileEntry { size: bytes.len() as u64, sha256: checksum(bytes) }
}

pub(super) fn checksum(bytes: &[u8]) -> Checksum {
    Checksum::of_digest(Sha256::digest(bytes).into())
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

pub(super) fn put(place: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let path = place.join(name);
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    set_mode(&path, mode)
}

pub(super) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the rights of {}", path.display()))
}

/// On disk before it gets its name.
pub(super) fn sync(place: &Path) -> Result<()> {
    for entry in fs::read_dir(place).with_context(|| format!("cannot read {}", place.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", place.display()))?.path();
        let synced = fs::File::open(&path).and_then(|file| file.sync_all());
        synced.with_context(|| format!("cannot write {} to disk", path.display()))?;
    }
    fs::File::open(place).and_then(|it| it.sync_all()).context("cannot write the folder to disk")
}
