//! What the next `index.json` says: what the one before said, the changes that were asked for, and
//! the versions that lie in the tree. Pure; `tree` reads, signs and writes.

use std::collections::{BTreeMap, BTreeSet};

use aio_protocol::{
    release::{
        Checksum, ReleaseVersion,
        index::{INDEX_LIFE, IndexedRelease, KeyId, ReleaseIndex},
    },
    time::Timestamp,
};
use anyhow::{Context, Result, bail, ensure};

/// The version of the protocol that workers of this workspace speak.
const PROTOCOL: u32 = 1;

/// What a run changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The oldest version that is installed from now on.
    pub(super) floor: Option<ReleaseVersion>,
    /// Keys that are believed no more.
    pub(super) revoke: Vec<KeyId>,
    /// The base64 of public keys that sign releases from now on, beside the others.
    pub(super) next_keys: Vec<String>,
    /// A version, and the oldest one that can be updated to it in one step.
    pub(super) oldest_from: Option<(ReleaseVersion, ReleaseVersion)>,
    /// Go on from an index that another key has signed and that does not name this one.
    pub(super) lost_key: bool,
}

/// The keys that are believed, and those that are not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) believed: Vec<String>,
    pub(super) revoked: BTreeSet<KeyId>,
}

/// Whom the next index believes, signed with `signer`. The signer is always in it, so that an index
/// which another key signs later still vouches for what this one has signed.
pub(super) fn keys(before: Option<&ReleaseIndex>, signer: &str, changes: &Changes) -> Result<Keys> {
    let known = before.map(|it| it.keys.as_slice()).unwrap_or_default();
    ensure!(
        before.is_none() || changes.lost_key || known.iter().any(|key| key == signer),
        "the index was signed with another key, which has not named this one: sign with that key and \
         --next-key first (--lost-key goes on without; nodes then need this key from root)"
    );
    let mut revoked = before.map(|it| it.revoked.clone()).unwrap_or_default();
    revoked.extend(changes.revoke.iter().cloned());
    let (mut believed, mut ids) = (Vec::new(), BTreeSet::new());
    for key in
        known.iter().map(String::as_str).chain([signer]).chain(changes.next_keys.iter().map(|it| &**it))
    {
        let id = KeyId::of_public_key(key).with_context(|| format!("`{key}` is no key of minisign"))?;
        if revoked.contains(&id) {
            ensure!(key != signer, "{id} is revoked, so it signs no index: sign with another key");
            ensure!(!changes.next_keys.iter().any(|it| it == key), "{id} is revoked, and stays so");
        } else if ids.insert(id) {
            believed.push(key.to_owned());
        }
    }
    Ok(Keys { believed, revoked })
}

/// The next index. `found` are the manifests' sums of the versions that a believed key has signed.
pub(super) fn next(
    before: Option<&ReleaseIndex>,
    keys: Keys,
    found: BTreeMap<ReleaseVersion, Checksum>,
    changes: &Changes,
    now: Timestamp,
) -> Result<ReleaseIndex> {
    if let Some(before) = before.filter(|before| before.issued_at > now) {
        bail!(
            "this machine's clock is behind: the index was signed at {}, and it is {now}",
            before.issued_at
        );
    }
    let last = before.map_or(0, |it| it.serial);
    let serial = last.checked_add(1).context("the index has the last serial that there is")?;
    let floor = floor(before.and_then(|it| it.floor.clone()), changes.floor.clone())?;
    let release = |(version, manifest_sha256): (ReleaseVersion, Checksum)| {
        let said = before.and_then(|it| it.releases.get(&version));
        let asked = changes.oldest_from.as_ref().filter(|(of, _)| *of == version);
        let release = IndexedRelease {
            manifest_sha256,
            oldest_from: asked.map(|it| &it.1).or(said.and_then(|it| it.oldest_from.as_ref())).cloned(),
            protocol: said.map_or(PROTOCOL, |it| it.protocol),
        };
        (version, release)
    };
    let mut index = ReleaseIndex {
        serial,
        issued_at: now,
        expires_at: now.plus(INDEX_LIFE),
        floor,
        revoked: keys.revoked,
        keys: keys.believed,
        releases: found.into_iter().map(release).collect(),
    };
    let all = std::mem::take(&mut index.releases);
    index.releases = all.into_iter().filter(|(version, _)| !index.is_below_floor(version)).collect();
    ensure!(!index.releases.is_empty(), "no version would be left that may be installed");
    Ok(index)
}

/// A floor only rises: nodes remember the highest one that they have seen.
fn floor(before: Option<ReleaseVersion>, asked: Option<ReleaseVersion>) -> Result<Option<ReleaseVersion>> {
    match (before, asked) {
        (Some(before), Some(asked)) if asked < before => {
            bail!("the floor is {before} already, and never falls: nodes would not believe {asked}")
        }
        (before, asked) => Ok(asked.or(before)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    const NEW: &str = "RWS3h4wX0DMEigsEt8UHs02qDkYnXMMM5UXfNwQoGsiwYOO6YVwvP5EJ";

    fn version(text: &str) -> ReleaseVersion {
        text.parse().unwrap()
    }

    fn found(versions: &[&str]) -> BTreeMap<ReleaseVersion, Checksum> {
        let sum = Checksum::from_hex(&"a".repeat(64)).unwrap();
        versions.iter().map(|it| (version(it), sum.clone())).collect()
    }

    fn id(key: &str) -> KeyId {
        KeyId::of_public_key(key).unwrap()
    }

    fn step(
        before: Option<&ReleaseIndex>,
        signer: &str,
        versions: &[&str],
        changes: &Changes,
        at: i64,
    ) -> Result<ReleaseIndex> {
        let keys = keys(before, signer, changes)?;
        next(before, keys, found(versions), changes, Timestamp::from_millis(at))
    }

    #[test]
    fn what_was_said_before_is_said_again_under_the_next_serial() {
        let changes = Changes {
            floor: Some(version("v1.0.0")),
            oldest_from: Some((version("v1.1.0"), version("v1.0.0"))),
            next_keys: vec![NEW.to_owned()],
            ..Changes::default()
        };
        let first = step(None, OLD, &["v1.0.0", "v1.1.0", "v0.9.0"], &changes, 1_000).unwrap();
        assert_eq!((first.serial, first.releases.len()), (1, 2), "v0.9.0 is below the floor");
        assert_eq!(first.keys, [OLD, NEW]);
        assert_eq!(first.expires_at, Timestamp::from_millis(1_000).plus(INDEX_LIFE));

        let second = step(Some(&first), NEW, &["v1.1.0", "v1.2.0"], &Changes::default(), 1_000).unwrap();
        assert_eq!((second.serial, &second.floor, &second.keys), (2, &first.floor, &first.keys));
        assert_eq!(second.releases[&version("v1.1.0")].oldest_from, Some(version("v1.0.0")));
        assert_eq!(second.releases[&version("v1.2.0")].oldest_from, None);
    }

    #[test]
    fn a_key_that_is_revoked_is_believed_no_more_and_never_again() {
        let both = Changes { next_keys: vec![NEW.to_owned()], ..Changes::default() };
        let first = step(None, OLD, &["v1.0.0"], &both, 1).unwrap();
        let revoke = Changes { revoke: vec![id(OLD)], ..Changes::default() };
        let second = step(Some(&first), NEW, &["v1.0.0"], &revoke, 2).unwrap();
        assert_eq!(
            (second.keys.as_slice(), second.revoked.contains(&id(OLD))),
            ([NEW.to_owned()].as_slice(), true)
        );

        let again = Changes { next_keys: vec![OLD.to_owned()], ..Changes::default() };
        for (before, signer, changes) in
            [(&first, OLD, &revoke), (&second, NEW, &again), (&second, OLD, &both)]
        {
            let refused = step(Some(before), signer, &["v1.0.0"], changes, 3).unwrap_err().to_string();
            assert!(refused.contains("revoked") || refused.contains("another key"), "{refused}");
        }
        let lost = Changes { lost_key: true, ..Changes::default() };
        assert!(step(Some(&second), OLD, &["v1.0.0"], &lost, 3).is_err(), "lost or not, it is revoked");
    }

    #[test]
    fn a_key_that_nobody_has_named_goes_on_only_where_the_other_is_lost() {
        let first = step(None, OLD, &["v1.0.0"], &Changes::default(), 1).unwrap();
        assert!(step(Some(&first), NEW, &["v1.0.0"], &Changes::default(), 2).is_err());
        let lost = Changes { lost_key: true, ..Changes::default() };
        let second = step(Some(&first), NEW, &["v1.0.0"], &lost, 2).unwrap();
        assert_eq!((second.serial, second.keys.len()), (2, 2));
    }

    #[test]
    fn neither_floor_nor_time_nor_serial_goes_back() {
        let floor = |text: &str| Changes { floor: Some(version(text)), ..Changes::default() };
        let mut first = step(None, OLD, &["v1.1.0"], &floor("v1.1.0"), 5).unwrap();
        for (versions, changes, at) in [
            (["v1.1.0"], floor("v1.0.0"), 6),
            (["v1.1.0"], Changes::default(), 4),
            (["v1.1.0"], floor("v2.0.0"), 6),
        ] {
            assert!(step(Some(&first), OLD, &versions, &changes, at).is_err());
        }
        first.serial = u64::MAX;
        assert!(step(Some(&first), OLD, &["v1.1.0"], &Changes::default(), 6).is_err());
    }
}
