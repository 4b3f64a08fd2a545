//! Releases from where they are published: a forge's releases, a bucket, or a tree that any web
//! server serves. Downloads into a hidden folder within the releases folder, which a later try goes
//! on with, and takes over what has come by the very same way as `releases add`. It decides which
//! versions to fetch, and believes nothing that the release keys have not signed.

mod client;
mod error;
mod forge;
mod place;
mod s3;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use aio_protocol::{
    release::{
        Checksum, ReleaseVersion,
        folder::{FolderManifest, MANIFEST, SUMS, read_sums},
        index::{INDEX, MAX_INDEX_BYTES, ReleaseIndex},
        label,
    },
    time::Timestamp,
};
use reqwest::Url;
use sha2::{Digest, Sha256};

use self::{
    client::{Client, Credential, Patience},
    error::io,
    forge::Assets,
    place::Place,
};
use super::{
    MAX_SIGNATURE_BYTES,
    folder::{ImportError, signature_of},
    import::{Import, import, manifest_sum},
    index::{IndexSummary, SignedIndex},
    keys::{Distrusted, Keys},
    outcome::Outcome,
};

pub use error::FetchError;

/// The largest manifest or list of sums.
const MAX_LIST_BYTES: u64 = 1024 * 1024;

/// The largest release, all files together.
const MAX_RELEASE_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// Where a fetch puts what it gets, within the releases folder.
const UNFINISHED: &str = ".fetching";

/// Reads of an index and its signature, which are replaced one after the other.
const PAIR_READS: usize = 3;

/// A source as it is said on the command line.
#[derive(Debug, Clone, Default)]
pub struct ReleaseSource {
    /// `github:OWNER/REPO` and so on.
    pub place: String,
    /// The file of the token.
    pub token_file: Option<PathBuf>,
    /// The address of a bucket's service.
    pub s3_endpoint: Option<String>,
    /// The region of a bucket.
    pub s3_region: Option<String>,
}

/// A source that can be asked.
pub(crate) struct Source {
    text: String,
    place: Place,
    client: Client,
}

impl Source {
    pub(crate) fn new(from: &ReleaseSource) -> Result<Self, FetchError> {
        Self::with_patience(from, Patience::default())
    }

    fn with_patience(from: &ReleaseSource, patience: Patience) -> Result<Self, FetchError> {
        let place = Place::parse(&from.place, from.s3_endpoint.as_deref(), from.s3_region.as_deref())?;
        let region = if let Place::Bucket { region, .. } = &place { Some(region.as_str()) } else { None };
        let credential = Credential::read(from.token_file.as_deref(), region)?;
        let client = Client::new(place.url(), credential, patience)?;
        Ok(Self { text: from.place.clone(), place, client })
    }

    /// Fetches what is newer than what lies in `into`, or `asked`, and takes it over.
    pub(crate) async fn fetch(
        &self,
        into: &Path,
        keys: Keys,
        asked: Option<&ReleaseVersion>,
        now: Timestamp,
    ) -> Result<Import, FetchError> {
        if !keys.verify_signatures() {
            return Err(FetchError::NoKey);
        }
        let place = into.join(UNFINISHED);
        fs::create_dir_all(&place).map_err(io("create", &place))?;
        let _lock = lock(&place)?;
        let done = self.fetch_into(&place, into, keys, asked, now).await;
        // What was refused is fetched anew; what broke off is gone on with.
        if done.as_ref().err().is_none_or(|error| !error.may_be_resumed()) {
            fs::remove_dir_all(&place).map_err(io("remove", &place))?;
        }
        done
    }

    async fn fetch_into(
        &self,
        place: &Path,
        into: &Path,
        keys: Keys,
        asked: Option<&ReleaseVersion>,
        now: Timestamp,
    ) -> Result<Import, FetchError> {
        let catalogue = self.catalogue().await?;
        let there = SignedIndex::read(into)?;
        let known = there.iter().fold(keys.clone(), |keys, there| keys.after(&there.index));
        let index = self.index(&catalogue, place, &known).await?;
        let mut change = None;
        if let Some(index) = &index {
            change = Some(index.change(there.as_ref())?);
        }
        let known = index.iter().fold(known, |keys, index| keys.after(&index.index));
        let here = |version: &ReleaseVersion| manifest_sum(&into.join(version.to_string()));
        let wanted = self.wanted(&catalogue, index.as_ref().map(|it| &it.index), here, asked)?;
        if wanted.is_empty() && change.is_none_or(|change| change == Outcome::AlreadyThere) {
            let index = index.map(|it| IndexSummary::of(&it.index, now, change));
            return Ok(Import { versions: Vec::new(), index });
        }
        keep_only(place, &wanted)?;
        for version in &wanted {
            let meant = index.as_ref().and_then(|it| it.index.releases.get(version));
            let meant = meant.map(|it| &it.manifest_sha256);
            let offer = Offer { catalogue: &catalogue, version, keys: &known, meant };
            self.download(&offer, &place.join(version.to_string()), None).await?;
        }
        Ok(import(place, into, keys, now)?)
    }

    /// Downloads the file `name` of the newest version, or of `asked`, into `place`, if that version is
    /// `accepted`, and says which it is and where the file lies. It is what the release keys have signed.
    pub(crate) async fn program(
        &self,
        place: &Path,
        keys: &Keys,
        asked: Option<&ReleaseVersion>,
        now: Timestamp,
        name: &str,
        accepted: impl FnOnce(&ReleaseVersion) -> bool,
    ) -> Result<(ReleaseVersion, Option<PathBuf>), FetchError> {
        let catalogue = self.catalogue().await?;
        let index = self.index(&catalogue, place, keys).await?.map(|it| it.index);
        // Whoever names a version is not held up by a source that withholds the news.
        if let Some(index) = index.as_ref().filter(|index| asked.is_none() && index.expired(now)) {
            return Err(FetchError::Expired(index.expires_at));
        }
        let keys = index.iter().fold(keys.clone(), Keys::after);
        let wanted = self.wanted(&catalogue, index.as_ref(), |_| Ok(None), asked)?;
        let Some(version) = wanted.into_iter().next_back() else {
            return Err(FetchError::Nothing { place: self.text.clone(), what: "release".to_owned() });
        };
        if !accepted(&version) {
            return Ok((version, None));
        }
        let meant = index.as_ref().and_then(|it| it.releases.get(&version)).map(|it| &it.manifest_sha256);
        let offer = Offer { catalogue: &catalogue, version: &version, keys: &keys, meant };
        let listed = self.download(&offer, place, Some(name)).await?;
        let path = place.join(name);
        let absent = || FetchError::Incomplete {
            version: version.clone(),
            place: self.text.clone(),
            name: name.to_owned(),
        };
        let expected = listed.get(name).ok_or_else(absent)?.clone();
        let bytes = fs::read(&path).map_err(io("read", &path))?;
        let actual = Checksum::of_digest(Sha256::digest(&bytes).into());
        if actual != expected {
            return Err(ImportError::Altered { path, expected, actual }.into());
        }
        Ok((version, Some(path)))
    }

    async fn catalogue(&self) -> Result<Catalogue, FetchError> {
        match &self.place {
            Place::Forge { forge, api, owner, name } => {
                let assets = forge::list((*forge, api, owner, name), self.client.clone()).await?;
                Ok(Catalogue::Assets(assets))
            }
            Place::Tree(base) | Place::Bucket { base, .. } => Ok(Catalogue::Tree(base.clone())),
        }
    }

    /// Fetches the index into `place`, where there is one, and verifies it.
    async fn index(
        &self,
        catalogue: &Catalogue,
        place: &Path,
        keys: &Keys,
    ) -> Result<Option<SignedIndex>, FetchError> {
        let signature = signature_of(INDEX);
        let (Some(url), Some(signature_url)) = (catalogue.index_url(INDEX), catalogue.index_url(&signature))
        else {
            remove(&place.join(INDEX))?;
            return Ok(None);
        };
        let mut reads = 1;
        loop {
            for (name, url, limit) in
                [(&*signature, &signature_url, MAX_SIGNATURE_BYTES), (INDEX, &url, MAX_INDEX_BYTES)]
            {
                let bytes = self.client.small_patiently(url, limit).await?;
                let path = place.join(name);
                fs::write(&path, bytes).map_err(io("write", &path))?;
            }
            let index = SignedIndex::read(place)?;
            match index.as_ref().map_or(Ok(()), |index| index.verify(keys)) {
                Ok(()) => return Ok(index),
                Err(ImportError::Refused { .. } | ImportError::Index { .. }) if reads < PAIR_READS => {
                    reads += 1
                }
                Err(error) => return Err(error.into()),
            }
            self.client.pause().await;
        }
    }

    /// The versions to fetch: `asked`, or the newest, and those that are here and were extended since.
    fn wanted(
        &self,
        catalogue: &Catalogue,
        index: Option<&ReleaseIndex>,
        here: impl Fn(&ReleaseVersion) -> Result<Option<Checksum>, ImportError>,
        asked: Option<&ReleaseVersion>,
    ) -> Result<Vec<ReleaseVersion>, FetchError> {
        let nothing = |what: String| FetchError::Nothing { place: self.text.clone(), what };
        let Some(index) = index else {
            let newest = match (asked, catalogue) {
                (Some(asked), _) => asked.clone(),
                (None, Catalogue::Assets(assets)) => {
                    newest(assets.keys()).ok_or_else(|| nothing("release".to_owned()))?.clone()
                }
                (None, Catalogue::Tree(_)) => return Err(nothing(INDEX.to_owned())),
            };
            let known = here(&newest)?.is_some() && asked.is_none();
            return Ok(if known { Vec::new() } else { vec![newest] });
        };
        let target = match asked {
            Some(asked) if !index.releases.contains_key(asked) => {
                return Err(nothing(format!("{asked} in its index")));
            }
            Some(asked) => Some(asked),
            None => newest(index.releases.keys()),
        };
        let mut wanted = Vec::new();
        for (version, release) in &index.releases {
            let sum = here(version)?;
            let differs = sum.as_ref().is_some_and(|sum| *sum != release.manifest_sha256);
            if differs || (sum.is_none() && Some(version) == target) {
                wanted.push(version.clone());
            }
        }
        Ok(wanted)
    }

    /// Downloads the files of a version into `folder`, or `only` one beside what vouches for it, and says
    /// what its sums list. They come first and must be signed, so that nothing large is taken from a
    /// stranger.
    async fn download(
        &self,
        offer: &Offer<'_>,
        folder: &Path,
        only: Option<&str>,
    ) -> Result<BTreeMap<String, Checksum>, FetchError> {
        let Offer { catalogue, version, keys, meant } = *offer;
        fs::create_dir_all(folder).map_err(io("create", folder))?;
        let url = |name: &str| {
            catalogue.url(version, name).ok_or_else(|| FetchError::Incomplete {
                version: version.clone(),
                place: self.text.clone(),
                name: name.to_owned(),
            })
        };
        let signature_path = folder.join(signature_of(SUMS));
        let sums = self.client.small_patiently(&url(SUMS)?, MAX_LIST_BYTES).await?;
        let signature_url = catalogue.url(version, &signature_of(SUMS));
        let unsigned = || ImportError::Unsigned { path: signature_path.clone() };
        let signature = match signature_url {
            Some(url) => match self.client.small_patiently(&url, MAX_SIGNATURE_BYTES).await {
                Err(FetchError::Absent(_)) => return Err(unsigned().into()),
                signature => signature?,
            },
            None => return Err(unsigned().into()),
        };
        let comment = keys.verify(&sums, &signature).map_err(|distrusted| match distrusted {
            Distrusted::Revoked(key) => ImportError::Revoked { path: signature_path.clone(), key },
            Distrusted::Unverified(source) => ImportError::Refused { path: signature_path.clone(), source },
        })?;
        label::check_file(&comment, version, SUMS)
            .map_err(|source| ImportError::Swapped { path: signature_path.clone(), source })?;
        let invalid = |problem: String| ImportError::Invalid { path: folder.to_owned(), problem };
        let listed = str::from_utf8(&sums).map_err(|error| invalid(error.to_string()))?;
        let listed = read_sums(listed).map_err(|error| invalid(error.to_string()))?;

        let text = self.client.small_patiently(&url(MANIFEST)?, MAX_LIST_BYTES).await?;
        let sum = Checksum::of_digest(Sha256::digest(&text).into());
        for expected in listed.get(MANIFEST).into_iter().chain(meant) {
            if *expected != sum {
                let path = folder.join(MANIFEST);
                return Err(ImportError::Altered { path, expected: expected.clone(), actual: sum }.into());
            }
        }
        let manifest: FolderManifest =
            serde_json::from_slice(&text).map_err(|error| invalid(format!("{MANIFEST}: {error}")))?;
        let total = manifest.files.values().fold(0_u64, |total, file| total.saturating_add(file.size));
        if total > MAX_RELEASE_BYTES {
            return Err(FetchError::TooLarge {
                url: format!("{} {version}", self.text),
                limit: MAX_RELEASE_BYTES,
            });
        }
        for (name, bytes) in
            [(SUMS.to_owned(), &sums), (signature_of(SUMS), &signature), (MANIFEST.to_owned(), &text)]
        {
            let path = folder.join(name);
            fs::write(&path, bytes).map_err(io("write", &path))?;
        }
        let chosen = |name: &&String| **name != MANIFEST && only.is_none_or(|only| only == **name);
        for name in listed.keys().filter(chosen) {
            let (url, path) = (url(name)?, folder.join(name));
            let done = match manifest.files.get(name) {
                Some(file) => self.client.file(&url, &path, file.size).await,
                // A signature, whose size nobody says.
                None => match self.client.small_patiently(&url, MAX_SIGNATURE_BYTES).await {
                    Ok(bytes) => fs::write(&path, bytes).map_err(io("write", &path)),
                    Err(error) => Err(error),
                },
            };
            done.map_err(|error| match error {
                FetchError::Absent(_) => FetchError::Incomplete {
                    version: version.clone(),
                    place: self.text.clone(),
                    name: name.clone(),
                },
                error => error,
            })?;
        }
        Ok(listed)
    }
}

/// A version of a source, the keys that it may be signed with, and what the index means by it.
struct Offer<'a> {
    catalogue: &'a Catalogue,
    version: &'a ReleaseVersion,
    keys: &'a Keys,
    meant: Option<&'a Checksum>,
}

/// Where each file lies.
enum Catalogue {
    Assets(Assets),
    Tree(Url),
}

impl Catalogue {
    fn url(&self, version: &ReleaseVersion, name: &str) -> Option<Url> {
        match self {
            Self::Assets(assets) => assets.get(version)?.get(name).cloned(),
            Self::Tree(base) => joined(base, &format!("{version}/{name}")),
        }
    }

    /// Of a file beside the versions; of a forge, the newest release that has it.
    fn index_url(&self, name: &str) -> Option<Url> {
        match self {
            Self::Assets(assets) => {
                assets.values().rev().find(|assets| assets.contains_key(INDEX))?.get(name).cloned()
            }
            Self::Tree(base) => joined(base, name),
        }
    }
}

/// `+` is written out, as signatures of requests have it.
fn joined(base: &Url, path: &str) -> Option<Url> {
    base.join(&path.replace('+', "%2B")).ok()
}

/// The newest version that is meant for everybody.
fn newest<'a>(versions: impl DoubleEndedIterator<Item = &'a ReleaseVersion>) -> Option<&'a ReleaseVersion> {
    versions.rev().find(|version| !version.is_prerelease())
}

/// Removes what an earlier try has left of other versions.
fn keep_only(place: &Path, wanted: &[ReleaseVersion]) -> Result<(), FetchError> {
    for entry in fs::read_dir(place).map_err(io("read", place))? {
        let path = entry.map_err(io("read", place))?.path();
        let version = path.file_name().and_then(|name| name.to_str()?.parse::<ReleaseVersion>().ok());
        if version.is_some_and(|version| !wanted.contains(&version)) {
            fs::remove_dir_all(&path).map_err(io("remove", &path))?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), FetchError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn lock(place: &Path) -> Result<fs::File, FetchError> {
    let path = place.join("lock");
    let file = fs::File::create(&path).map_err(io("write", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(FetchError::Locked(path)),
        Err(fs::TryLockError::Error(source)) => Err(io("lock", &path)(source)),
    }
}
