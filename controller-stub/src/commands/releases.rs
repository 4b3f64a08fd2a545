//! Releases from the command line: taking them over into the folder that the server offers, and
//! saying which lie there.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aio_protocol::release::{
    Platform, ReleaseVersion,
    folder::{FolderManifest, MANIFEST},
};
use serde::Serialize;
use serde_json::json;

use super::{CommandError, DEPLOYMENT, default_owner, on_command_line, open};
use crate::{
    clock,
    config::Config,
    deployment::Deployment,
    releases::{
        self, Import, ImportError, IndexSummary, Keys, Outcome, ReleaseSource, SIGNATURE_SUFFIX,
        fetch::Source,
    },
    store::Store,
};

/// A release as a list shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedRelease {
    /// Its version.
    pub version: ReleaseVersion,
    /// What it runs on.
    pub platforms: Vec<Platform>,
    /// The commit that it was built from, where its manifest says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Whether the worker of every platform has a signature.
    pub signed: bool,
    /// Whether it is the release of a token that asks for none.
    pub default: bool,
    /// Whether the index names it, as it is here, where there is an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub indexed: Option<bool>,
}

/// What the releases folder holds.
#[derive(Debug, Default)]
pub struct ReleaseList {
    /// The releases, oldest first.
    pub releases: Vec<ListedRelease>,
    /// Their index, where there is one.
    pub index: Option<IndexSummary>,
}

/// What the server offers, as this command line or the last start of the server has it.
struct Offered {
    folder: PathBuf,
    keys: Keys,
    default: ReleaseVersion,
    store: Option<Store>,
}

impl Offered {
    async fn of(config: &Config) -> Result<Self, CommandError> {
        // Before the first start of a server there is nothing that it has kept, and no folder for a database.
        let served = config.database_url.is_some() || config.data_dir.is_dir();
        let store = if served { Some(open(config).await?) } else { None };
        let kept = match &store {
            Some(store) => store.setting(DEPLOYMENT).await?,
            None => None,
        };
        let kept: Option<Deployment> = kept.map(|text| serde_json::from_str(&text)).transpose()?;
        let configured = config.release_public_keys.clone();
        let (folder, configured, default) = match kept {
            Some(kept) if configured.is_empty() => {
                (kept.releases.clone(), kept.release_public_keys(), kept.default_daemon_version)
            }
            Some(kept) => (kept.releases, configured, kept.default_daemon_version),
            None => (None, configured, config.default_daemon_version.clone()),
        };
        let keys = Keys::of(&configured).ok_or(CommandError::ReleaseKey)?;
        let folder = config.releases.clone().or(folder).ok_or(CommandError::NoReleases)?;
        Ok(Self { folder, keys, default, store })
    }
}

/// Takes over the version in `from`, or every version below it, and the index of their tree, after
/// checking sums and, with release keys, signatures.
pub async fn add_releases(config: &Config, from: &Path) -> Result<Import, CommandError> {
    let offered = Offered::of(config).await?;
    let imported = releases::import(from, &offered.folder, offered.keys, clock::now())?;
    if let Some(store) = &offered.store {
        record(store, &imported, None).await?;
    }
    Ok(imported)
}

/// Fetches what is newer than what lies in the folder, or `version`, and takes it over like
/// `add_releases`.
pub async fn fetch_releases(
    config: &Config,
    from: &ReleaseSource,
    version: Option<&ReleaseVersion>,
) -> Result<Import, CommandError> {
    let offered = Offered::of(config).await?;
    let source = Source::new(from)?;
    let imported = source.fetch(&offered.folder, offered.keys, version, clock::now()).await?;
    let changed = |outcome| outcome != Outcome::AlreadyThere;
    let news = imported.versions.iter().any(|it| changed(it.outcome))
        || imported.index.as_ref().and_then(|it| it.outcome).is_some_and(changed);
    if let Some(store) = offered.store.as_ref().filter(|_| news) {
        record(store, &imported, Some(&from.place)).await?;
    }
    Ok(imported)
}

async fn record(store: &Store, imported: &Import, from: Option<&str>) -> Result<(), CommandError> {
    let org = default_owner(store).await?.org_id;
    let versions: Vec<_> = imported.versions.iter().map(|release| release.version.to_string()).collect();
    let index = imported.index.as_ref().map(|index| index.serial);
    let detail = Some(json!({ "versions": versions, "index": index, "from": from }));
    Ok(on_command_line(store, &org, "release.add", None, detail).record_outcome("done").await?)
}

/// The releases that lie in the folder, and their index.
pub async fn list_releases(config: &Config) -> Result<ReleaseList, CommandError> {
    let offered = Offered::of(config).await?;
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| CommandError::from(ImportError::Io { action: "read", path, source })
    };
    let entries = match fs::read_dir(&offered.folder) {
        Ok(entries) => entries,
        // The first release makes it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ReleaseList::default()),
        Err(error) => return Err(unreadable(&offered.folder)(error)),
    };
    let index = releases::published_index(&offered.folder)?;
    let mut listed = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable(&offered.folder))?.path();
        let version = path.file_name().and_then(|name| name.to_str()?.parse::<ReleaseVersion>().ok());
        let Some(version) = version.filter(|_| path.is_dir()) else { continue };
        let platforms: Vec<_> =
            Platform::ALL.into_iter().filter(|platform| path.join(platform.as_str()).is_file()).collect();
        let signed = |platform: &Platform| path.join(format!("{platform}{SIGNATURE_SUFFIX}")).is_file();
        let manifest = fs::read(path.join(MANIFEST)).ok();
        let manifest: Option<FolderManifest> = manifest.and_then(|text| serde_json::from_slice(&text).ok());
        listed.push(ListedRelease {
            indexed: index.as_ref().map(|index| releases::is_indexed(index, &version, &path)),
            default: version == offered.default,
            signed: !platforms.is_empty() && platforms.iter().all(signed),
            commit: manifest.map(|manifest| manifest.commit),
            version,
            platforms,
        });
    }
    listed.sort_by(|a, b| a.version.cmp(&b.version));
    let index = index.map(|index| IndexSummary::of(&index, clock::now(), None));
    Ok(ReleaseList { releases: listed, index })
}
