//! Which keys releases may be signed with: those of the configuration, and those that an index names
//! which one of them has signed; never one that an index has revoked. Reads no file.

use std::collections::{BTreeMap, BTreeSet};

use aio_protocol::release::index::{KeyId, ReleaseIndex};
use minisign_verify::{Error as Unverified, PublicKey, Signature};

/// The keys that are believed. Without any, signatures are not verified; a revoked key is refused all the
/// same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    believed: BTreeMap<KeyId, PublicKey>,
    revoked: BTreeSet<KeyId>,
    verifies: bool,
}

/// Why a signature is worth nothing.
#[derive(Debug)]
pub(super) enum Distrusted {
    /// It does not hold, or nobody who is believed has made it.
    Unverified(Unverified),
    /// Its key was revoked.
    Revoked(KeyId),
}

impl Keys {
    /// The keys of a configuration, as the base64 of their `.pub` files; `None` where one is no key.
    pub(crate) fn of(configured: &[String]) -> Option<Self> {
        let mut keys = Self { verifies: !configured.is_empty(), ..Self::default() };
        configured.iter().try_for_each(|text| keys.believe(text))?;
        Some(keys)
    }

    /// Whether signatures are verified.
    pub(super) fn verify_signatures(&self) -> bool {
        self.verifies
    }

    /// These keys and what `index` says of keys, which one of them has signed.
    pub(super) fn after(mut self, index: &ReleaseIndex) -> Self {
        self.revoked.extend(index.revoked.iter().cloned());
        if self.verifies {
            // One that cannot be read is of a kind to come.
            for text in &index.keys {
                let _ = self.believe(text);
            }
        }
        self
    }

    fn believe(&mut self, text: &str) -> Option<()> {
        let id = KeyId::of_public_key(text)?;
        let key = PublicKey::from_base64(text).ok()?;
        self.believed.insert(id, key);
        Some(())
    }

    /// The trusted comment of the signature `text` of `bytes`, where it is worth something.
    pub(super) fn verify(&self, bytes: &[u8], text: &[u8]) -> Result<String, Distrusted> {
        let text = str::from_utf8(text).map_err(|_| Distrusted::Unverified(Unverified::InvalidEncoding))?;
        let signature = Signature::decode(text).map_err(Distrusted::Unverified)?;
        let id = KeyId::of_signature(text).ok_or(Distrusted::Unverified(Unverified::InvalidEncoding))?;
        if self.revoked.contains(&id) {
            return Err(Distrusted::Revoked(id));
        }
        if self.verifies {
            let key = self.believed.get(&id).ok_or(Distrusted::Unverified(Unverified::UnexpectedKeyId))?;
            key.verify(bytes, &signature, false).map_err(Distrusted::Unverified)?;
        }
        Ok(signature.trusted_comment().to_owned())
    }
}
