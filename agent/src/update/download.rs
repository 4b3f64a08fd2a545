//! Brings a release to the machine, into a folder of its own below the inbox, flat by file name:
//! the signed index, the manifest, the program of this machine's platform, and the units. What
//! comes is bounded by what is named before it, and compared with it. Whether any of it may be
//! believed is root's to say.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::SystemTime,
};

use aio_host::{
    files::{self, FileError, FileSystem},
    proxy::Proxy,
    tls::Trust,
};
use aio_installer::{Failure, ReleaseTree, checksum};
use aio_protocol::{
    error_code::ErrorCode,
    release::{
        Platform, ReleaseManifest, ReleaseVersion,
        folder::{FileEntry, FolderManifest, MANIFEST, SIGNATURE_SUFFIX, is_file_name},
        index::{INDEX, MAX_INDEX_BYTES, ReleaseIndex},
    },
};
use tokio::runtime::Builder;
pub use tokio_util::sync::CancellationToken as Cancelled;
use tracing::{info, warn};

use super::offer::Offer;

/// A larger manifest is not read.
const MAX_MANIFEST_BYTES: u64 = 1024 * 1024;

/// A larger signature is not read.
const MAX_SIGNATURE_BYTES: u64 = 8 * 1024;

/// A larger unit is not read.
const MAX_UNIT_BYTES: u64 = 1024 * 1024;

/// The way to the releases.
#[derive(Debug, Clone)]
pub struct Route {
    /// Whom to trust.
    pub trust: Trust,
    /// The proxy that somebody named.
    pub proxy: Option<Proxy>,
    /// Whether plain `http` may leave this machine.
    pub insecure_http: bool,
}

/// Finds the way; may read files.
pub type Source = Box<dyn FnOnce() -> Result<Route, Failure> + Send>;

/// Downloads until all is there, or until `cancelled`; gives the index's serial. Blocks: for a thread
/// of its own.
pub fn run(offer: &Offer, source: Source, inbox: &Path, cancelled: &Cancelled) -> Result<u64, Failure> {
    let route = source()?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::new(ErrorCode::Internal, format!("the download could not be started: {error}"))
    })?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            biased;
            () = cancelled.cancelled() => {
                Err(Failure::new(ErrorCode::UpdateCancelled, "the download was stopped"))
            }
            outcome = bring(offer, &route, inbox) => outcome,
        }
    });
    runtime.shutdown_background();
    outcome
}

/// Removes what other updates have left in the inbox.
pub fn clear(inbox: &Path, kept: Option<&Offer>) {
    let kept = kept.map(|offer| inbox.join(offer.id.to_string()));
    for entry in fs::read_dir(inbox).into_iter().flatten().flatten() {
        let is_left = entry.file_type().is_ok_and(|kind| kind.is_dir()) && Some(entry.path()) != kept;
        if is_left && let Err(error) = fs::remove_dir_all(entry.path()) {
            warn!(path = %entry.path().display(), %error, "what is left of an earlier update cannot be removed");
        }
    }
}

async fn bring(offer: &Offer, route: &Route, inbox: &Path) -> Result<u64, Failure> {
    let Offer { version, releases_url, .. } = offer;
    let tree = ReleaseTree::at(releases_url, &route.trust, route.proxy.as_ref(), route.insecure_http)?;
    let folder = inbox.join(offer.id.to_string());
    // Root reads it as a member of the daemon's group.
    files::create_dir(inbox, 0o750).map_err(Failure::from)?;
    clear(inbox, Some(offer));
    files::create_dir(&folder, 0o750).map_err(Failure::from)?;
    let keep = |name: &str, bytes: &[u8]| files::replace_file(&folder.join(name), bytes, 0o640);

    let index = tree.read(INDEX, MAX_INDEX_BYTES).await?;
    let serial = judge(&index, offer)?;
    keep(INDEX, &index)?;
    let signature = format!("{INDEX}{SIGNATURE_SUFFIX}");
    keep(&signature, &tree.read(&signature, MAX_SIGNATURE_BYTES).await?)?;

    let manifest = tree.read(&format!("{version}/{MANIFEST}"), MAX_MANIFEST_BYTES).await?;
    let wanted = read_manifest(&manifest, offer)?;
    keep(MANIFEST, &manifest)?;
    room_for(&wanted, &folder)?;

    let Wanted { platform, program, units } = wanted;
    let name = platform.as_str();
    let release = ReleaseManifest {
        version: version.clone(),
        platform,
        checksum: program.sha256,
        size: program.size,
        signature: None,
    };
    info!(%version, bytes = release.size, "downloading the release that the controller offers");
    let path = folder.join(name);
    tree.bring(&format!("{version}/{name}"), &release, &path).await?;
    fs::set_permissions(&path, Permissions::from_mode(0o640))
        .map_err(FileError::on(&path, "set the mode of"))?;
    let signature = format!("{name}{SIGNATURE_SUFFIX}");
    keep(&signature, &tree.read(&format!("{version}/{signature}"), MAX_SIGNATURE_BYTES).await?)?;
    for (name, entry) in units {
        let bytes = tree.read(&format!("{version}/{name}"), entry.size).await?;
        compare(&name, &bytes, &entry)?;
        keep(&name, &bytes)?;
    }
    files::sync_dir(&folder).map_err(Failure::from)?;
    Ok(serial)
}

/// What of a release is brought.
struct Wanted {
    platform: Platform,
    program: FileEntry,
    units: Vec<(String, FileEntry)>,
}

/// The serial of an index that root may take: it looks again, and at the signature.
fn judge(bytes: &[u8], offer: &Offer) -> Result<u64, Failure> {
    let Offer { version, index_serial, .. } = offer;
    let refused = |code, message: String| Err(Failure::new(code, message));
    let index: ReleaseIndex = match serde_json::from_slice(bytes) {
        Ok(index) => index,
        Err(error) => return refused(ErrorCode::IndexInvalid, format!("{INDEX} cannot be read: {error}")),
    };
    if index.serial < *index_serial {
        let message = format!("{INDEX} has the serial {}, and the offer {index_serial}", index.serial);
        return refused(ErrorCode::IndexReplayed, message);
    }
    if index.expired(SystemTime::now().into()) {
        return refused(ErrorCode::IndexExpired, format!("{INDEX} held until {}", index.expires_at));
    }
    let Some(release) = index.releases.get(version) else {
        return refused(ErrorCode::IndexInvalid, format!("{INDEX} does not name {version}"));
    };
    if release.manifest_sha256 != offer.manifest_sha256 {
        let message = format!("{INDEX} names another {MANIFEST} of {version} than the offer");
        return refused(ErrorCode::IndexInvalid, message);
    }
    if let Some(floor) = index.floor.as_ref().filter(|_| index.is_below_floor(version)) {
        let message = format!("{version} is older than {floor}, the oldest that the index allows");
        return refused(ErrorCode::UpdateBelowFloor, message);
    }
    let running = ReleaseVersion::running();
    let next = index.next_step(&running, version);
    if next != Some(version) {
        let way = next.map(|stone| format!("; the way leads by {stone}")).unwrap_or_default();
        let message = format!("{version} cannot be installed over {running}{way}");
        return refused(ErrorCode::UpdateUnreachable, message);
    }
    Ok(index.serial)
}

fn read_manifest(bytes: &[u8], offer: &Offer) -> Result<Wanted, Failure> {
    let version = &offer.version;
    let actual = checksum(bytes);
    if actual != offer.manifest_sha256 {
        let expected = &offer.manifest_sha256;
        let message =
            format!("{MANIFEST} of {version} has the checksum {actual}, and {expected} was offered");
        return Err(Failure::new(ErrorCode::ChecksumMismatch, message));
    }
    let unreadable = |why: String| {
        Failure::new(ErrorCode::IndexInvalid, format!("{MANIFEST} of {version} cannot be used: {why}"))
    };
    let manifest: FolderManifest =
        serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
    let of_another = || unreadable(format!("it is of {}", manifest.version));
    if manifest.version != *version {
        return Err(of_another());
    }
    let platform = Platform::of_architecture(std::env::consts::ARCH);
    let found = platform
        .and_then(|platform| manifest.files.get(platform.as_str()).map(|entry| (platform, entry.clone())));
    let Some((platform, program)) = found else {
        let message = format!("there is no {version} for {}", std::env::consts::ARCH);
        return Err(Failure::new(ErrorCode::PlatformUnsupported, message));
    };
    let units: Vec<_> = manifest.files.into_iter().filter(|(name, _)| is_unit(name)).collect();
    match units.iter().find(|(_, entry)| entry.size > MAX_UNIT_BYTES) {
        Some((name, entry)) => Err(unreadable(format!("{name} has {} bytes", entry.size))),
        None => Ok(Wanted { platform, program, units }),
    }
}

/// Whether a file of a release is one of the worker's units or declarations.
fn is_unit(name: &str) -> bool {
    let ending = [".service", ".socket", ".conf"].iter().any(|ending| name.ends_with(ending));
    is_file_name(name) && name.starts_with("aio-worker") && ending
}

fn room_for(wanted: &Wanted, folder: &Path) -> Result<(), Failure> {
    let units: u64 = wanted.units.iter().map(|(_, entry)| entry.size).sum();
    let bytes = wanted.program.size.saturating_add(units);
    match FileSystem::of(folder).map_err(Failure::from)?.lacks(bytes) {
        Some((needed, free, what)) => {
            let message =
                format!("{} has {free} {what} free, and the release needs {needed}", folder.display());
            Err(Failure::new(ErrorCode::DiskFull, message))
        }
        None => Ok(()),
    }
}

fn compare(name: &str, bytes: &[u8], entry: &FileEntry) -> Result<(), Failure> {
    let actual = checksum(bytes);
    if actual == entry.sha256 {
        return Ok(());
    }
    let message = format!("{name} has the checksum {actual}, and {MANIFEST} says {}", entry.sha256);
    Err(Failure::new(ErrorCode::ChecksumMismatch, message))
}
