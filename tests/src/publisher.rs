//! An owner of a release key: signs versions of the built worker and the index of them, as
//! `cargo xtask release` does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use aio_host::layout::UNIT;
use aio_installer::checksum;
use aio_protocol::{
    release::{
        ReleaseVersion, build,
        folder::{MANIFEST, SIGNATURE_SUFFIX},
        index::{INDEX, IndexedRelease, ReleaseIndex},
        label,
    },
    time::Timestamp,
};
use anyhow::{Context, Result};
use minisign::KeyPair;

use crate::{artifacts::Artifacts, release_folder};

/// Who signs.
#[derive(Debug)]
pub struct Publisher {
    keys: KeyPair,
}

impl Publisher {
    /// With a key of its own.
    pub fn new() -> Result<Self> {
        Ok(Self { keys: KeyPair::generate_unencrypted_keypair()? })
    }

    /// The public key, in base64.
    pub fn key(&self) -> String {
        self.keys.pk.to_base64()
    }

    /// The detached signature of `bytes`.
    pub fn sign(&self, bytes: &[u8], comment: &str) -> Result<String> {
        Ok(minisign::sign(Some(&self.keys.pk), &self.keys.sk, bytes, Some(comment), None)?.into_string())
    }

    /// Publishes the built worker as `version`, with files that `edit` changes in its folder.
    pub fn publish(
        &self,
        artifacts: &Artifacts,
        tree: &Path,
        version: &str,
        edit: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let worker = fs::read(artifacts.worker()?)?;
        let number = version.trim_start_matches('v');
        let worker = build::stamped(worker, number).context("the worker has no place for a version")?;
        let version: ReleaseVersion = version.parse()?;
        let sign = |place: &Path, name: &str| {
            let signature = self.sign(&fs::read(place.join(name))?, &label::comment(&version, name))?;
            Ok(fs::write(place.join(format!("{name}{SIGNATURE_SUFFIX}")), signature)?)
        };
        release_folder::write_as(artifacts, tree, &version.to_string(), &worker, &[], edit, sign)?;
        Ok(())
    }

    /// Puts these lines behind those of the unit in a release's folder, which they override.
    pub fn override_unit(place: &Path, lines: &str) -> Result<()> {
        let unit = place.join(UNIT);
        let text = fs::read_to_string(&unit)?;
        Ok(fs::write(&unit, text.replace("\n[Install]", &format!("\n{lines}\n[Install]")))?)
    }

    /// Signs an index of all versions in `tree`, the next in number, as `change` makes it.
    pub fn index(&self, tree: &Path, change: impl FnOnce(&mut ReleaseIndex)) -> Result<ReleaseIndex> {
        let before = fs::read(tree.join(INDEX)).ok();
        let before: Option<ReleaseIndex> = before.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut releases = BTreeMap::new();
        for entry in fs::read_dir(tree)? {
            let (name, path) = (entry.as_ref().ok().map(|it| it.file_name()), entry?.path());
            let version = name.and_then(|name| name.to_str()?.parse::<ReleaseVersion>().ok());
            if let (Some(version), Ok(manifest)) = (version, fs::read(path.join(MANIFEST))) {
                let manifest_sha256 = checksum(&manifest);
                releases.insert(version, IndexedRelease { manifest_sha256, oldest_from: None, protocol: 1 });
            }
        }
        let issued_at: Timestamp = SystemTime::now().into();
        let mut index = ReleaseIndex {
            serial: before.map_or(1, |before| before.serial + 1),
            issued_at,
            expires_at: issued_at.plus(Duration::from_secs(24 * 3600)),
            floor: None,
            revoked: BTreeSet::new(),
            keys: Vec::new(),
            releases,
        };
        change(&mut index);
        let bytes = serde_json::to_vec_pretty(&index)?;
        let signature = self.sign(&bytes, &index.comment())?;
        fs::write(tree.join(format!("{INDEX}{SIGNATURE_SUFFIX}")), signature)?;
        fs::write(tree.join(INDEX), bytes)?;
        Ok(index)
    }
}
