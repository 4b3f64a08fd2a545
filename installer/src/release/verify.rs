//! Whether a file is the release that was promised: size, SHA-256, the signature by the key that is
//! demanded with what it says of the file, and a program for this platform. Looks at bytes as they
//! pass; touches no file and no network. There is no way to skip a check.

use std::{fmt, path::Path};

use aio_protocol::{
    error_code::ErrorCode,
    release::{
        Checksum, ReleaseManifest, label,
        program::{self, NotOurs},
    },
};
use minisign_verify::{Error, PublicKey, Signature, StreamVerifier};
use sha2::{Digest, Sha256};

use crate::failure::Failure;

/// The SHA-256 of `bytes`.
pub(crate) fn checksum(bytes: &[u8]) -> Checksum {
    Checksum::of_digest(Sha256::digest(bytes).into())
}

/// What a release file must be.
#[derive(Clone)]
pub(crate) struct Promise {
    pub(crate) release: ReleaseManifest,
    /// Where it comes from, for messages: a URL, or a bundle's path.
    pub(crate) origin: String,
    /// When one is demanded.
    signature: Option<(PublicKey, Signature)>,
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promise")
            .field("origin", &self.origin)
            .field("size", &self.release.size)
            .field("checksum", &self.release.checksum)
            .field("signed", &self.signature.is_some())
            .finish()
    }
}

impl Promise {
    /// What `release` promises, under `key`. With a key, a signature that is missing, unreadable,
    /// by another key or of another file is refused before a byte is fetched.
    pub(crate) fn of(
        release: ReleaseManifest,
        origin: &str,
        key: Option<&PublicKey>,
    ) -> Result<Self, Failure> {
        let signature = match (key, &release.signature) {
            (None, _) => None,
            (Some(_), None) => {
                let message =
                    format!("a signed release is demanded, and {} has no signature", release.version);
                return Err(Failure::new(ErrorCode::SignatureMissing, message).with("url", origin));
            }
            (Some(key), Some(text)) => {
                let signature = Signature::decode(text).map_err(|error| unsigned(origin, error))?;
                key.verify_stream(&signature).map_err(|error| unsigned(origin, error))?;
                label::check(signature.trusted_comment(), &release.version, release.platform).map_err(
                    |other| {
                        let message = format!("{origin} is not what its signature was made for: {other}");
                        Failure::new(ErrorCode::ReleaseSwapped, message).with("url", origin)
                    },
                )?;
                Some((key.clone(), signature))
            }
        };
        Ok(Self { release, origin: origin.to_owned(), signature })
    }

    /// The failure of a body of another size than promised; `actual` in words.
    pub(crate) fn wrong_size(&self, actual: &str) -> Failure {
        let Self { origin, release, .. } = self;
        let message = format!("{origin} has {actual}, and the plan says {}", release.size);
        Failure::new(ErrorCode::SizeMismatch, message).with("size", release.size).with("url", &**origin)
    }

    /// The failure of a file with another sum than promised.
    pub(crate) fn wrong_sum(&self, actual: &Checksum) -> Failure {
        let Self { origin, release, .. } = self;
        let expected = &release.checksum;
        let message = format!(
            "{origin} is not the published file: its checksum is {actual}, and {expected} was expected"
        );
        Failure::new(ErrorCode::ChecksumMismatch, message)
            .with("expected", expected.to_string())
            .with("actual", actual.to_string())
            .with("size", release.size)
            .with("url", &**origin)
    }

    fn no_program(&self, why: NotOurs) -> Failure {
        let code = match why {
            NotOurs::NoProgram => ErrorCode::ElfInvalid,
            NotOurs::OfPlatform(_) | NotOurs::OfProcessor(_) => ErrorCode::ArchitectureMismatch,
        };
        let message = format!("{} cannot run on {}: {why}", self.origin, self.release.platform);
        Failure::new(code, message).with("url", &*self.origin)
    }
}

/// Whether the bundle at `path` holds the very file that the controller plans.
pub(crate) fn same_file(
    bundled: &ReleaseManifest,
    planned: &ReleaseManifest,
    path: &Path,
) -> Result<(), Failure> {
    let origin = path.display().to_string();
    if bundled.version != planned.version {
        let (found, expected) = (&bundled.version, &planned.version);
        let message = format!("{origin} holds {found}, and the controller plans {expected}");
        return Err(Failure::new(ErrorCode::ReleaseSwapped, message)
            .with("expected", expected.to_string())
            .with("actual", found.to_string()));
    }
    if bundled.checksum != planned.checksum {
        let promise = Promise { release: planned.clone(), origin, signature: None };
        return Err(promise.wrong_sum(&bundled.checksum));
    }
    Ok(())
}

fn unsigned(origin: &str, error: Error) -> Failure {
    let (code, reason) = match error {
        Error::UnexpectedKeyId => (ErrorCode::SignatureForeign, "it was made with another key".to_owned()),
        Error::InvalidSignature => (ErrorCode::SignatureInvalid, "it is not of these bytes".to_owned()),
        error => (ErrorCode::SignatureInvalid, error.to_string()),
    };
    Failure::new(code, format!("the signature of {origin} does not hold: {reason}")).with("url", origin)
}

/// The checks of one transfer.
pub(crate) struct Check<'p> {
    promise: &'p Promise,
    received: u64,
    /// The first bytes, which say what kind of program it is.
    head: Vec<u8>,
    sha256: Sha256,
    signature: Option<StreamVerifier<'p>>,
}

impl<'p> Check<'p> {
    /// No byte has come yet.
    pub(crate) fn new(promise: &'p Promise) -> Result<Self, Failure> {
        let signature = match &promise.signature {
            None => None,
            Some((key, signature)) => {
                Some(key.verify_stream(signature).map_err(|error| unsigned(&promise.origin, error))?)
            }
        };
        let head = Vec::with_capacity(program::HEAD);
        Ok(Self { promise, received: 0, head, sha256: Sha256::new(), signature })
    }

    /// Takes the next bytes, and refuses the first one too many.
    pub(crate) fn update(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        self.received += chunk.len() as u64;
        if self.received > self.promise.release.size {
            return Err(self.promise.wrong_size("more bytes"));
        }
        let missing = program::HEAD - self.head.len();
        self.head.extend(chunk.iter().take(missing));
        self.sha256.update(chunk);
        if let Some(signature) = &mut self.signature {
            signature.update(chunk);
        }
        Ok(())
    }

    /// The verdict, once the body has ended.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let Promise { release, origin, .. } = self.promise;
        if self.received != release.size {
            return Err(self.promise.wrong_size(&format!("{} bytes", self.received)));
        }
        let actual = Checksum::of_digest(self.sha256.finalize().into());
        if actual != release.checksum {
            return Err(self.promise.wrong_sum(&actual));
        }
        if let Some(signature) = &mut self.signature {
            signature.finalize().map_err(|error| unsigned(origin, error))?;
        }
        program::check(&self.head, release.platform).map_err(|why| self.promise.no_program(why))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use aio_protocol::release::Platform;
    use minisign::KeyPair;

    use super::*;

    /// What begins as a program for amd64 does.
    pub(crate) fn program(rest: &[u8]) -> Vec<u8> {
        [b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0".as_slice(), rest].concat()
    }

    pub(crate) fn release_of(bytes: &[u8]) -> ReleaseManifest {
        ReleaseManifest {
            version: "v1.0.0".parse().unwrap(),
            platform: Platform::LinuxAmd64,
            checksum: checksum(bytes),
            size: bytes.len() as u64,
            signature: None,
        }
    }

    fn promise_of(release: ReleaseManifest, key: Option<&KeyPair>) -> Result<Promise, ErrorCode> {
        let key = key.map(|keys| PublicKey::from_base64(&keys.pk.to_base64()).unwrap());
        Promise::of(release, "https://x/v1.0.0/linux-amd64", key.as_ref()).map_err(|failure| failure.code)
    }

    fn verdict(promise: &Promise, chunks: &[&[u8]]) -> Result<(), ErrorCode> {
        let mut check = Check::new(promise).map_err(|failure| failure.code)?;
        chunks.iter().try_for_each(|chunk| check.update(chunk)).map_err(|failure| failure.code)?;
        check.finish().map_err(|failure| failure.code)
    }

    #[test]
    fn size_and_sum_are_checked_however_the_bytes_are_cut() {
        let bytes = program(b"release");
        let promise = promise_of(release_of(&bytes), None).unwrap();
        for cut in 0..bytes.len() {
            assert_eq!(verdict(&promise, &[&bytes[..cut], b"", &bytes[cut..]]), Ok(()), "{cut}");
        }
        assert_eq!(verdict(&promise, &[&bytes[..9]]), Err(ErrorCode::SizeMismatch));
        assert_eq!(verdict(&promise, &[&bytes, b"!"]), Err(ErrorCode::SizeMismatch));
        assert_eq!(verdict(&promise, &[&program(b"releasf")]), Err(ErrorCode::ChecksumMismatch));
    }

    #[test]
    fn a_published_file_that_this_machine_cannot_run_is_refused() {
        let of = |bytes: &[u8]| verdict(&promise_of(release_of(bytes), None).unwrap(), &[bytes]);
        assert_eq!(of(b"#!/bin/sh\nexec something else\n"), Err(ErrorCode::ElfInvalid));
        assert_eq!(of(b"short"), Err(ErrorCode::ElfInvalid));
        let mut foreign = program(b"release");
        foreign[18] = 183;
        assert_eq!(of(&foreign), Err(ErrorCode::ArchitectureMismatch));
    }

    #[test]
    fn a_signature_counts_only_by_the_demanded_key_over_these_bytes_and_this_name() {
        let keys = KeyPair::generate_unencrypted_keypair().unwrap();
        let other = KeyPair::generate_unencrypted_keypair().unwrap();
        let release = program(b"release");
        let sign = |keys: &KeyPair, bytes: &[u8], comment: Option<&str>| {
            Some(minisign::sign(Some(&keys.pk), &keys.sk, bytes, comment, None).unwrap().into_string())
        };
        let code = |signature: Option<String>| {
            let promise = promise_of(ReleaseManifest { signature, ..release_of(&release) }, Some(&keys))?;
            verdict(&promise, &[&release])
        };
        assert_eq!(code(sign(&keys, &release, None)), Ok(()));
        assert_eq!(code(sign(&keys, &release, Some("file:linux-amd64 version:v1.0.0"))), Ok(()));
        assert_eq!(code(None), Err(ErrorCode::SignatureMissing));
        assert_eq!(code(sign(&other, &release, None)), Err(ErrorCode::SignatureForeign));
        assert_eq!(code(sign(&keys, b"another", None)), Err(ErrorCode::SignatureInvalid));
        assert_eq!(code(Some("no signature".to_owned())), Err(ErrorCode::SignatureInvalid));
        for comment in ["file:linux-arm64", "file:linux-amd64 version:v0.9.0"] {
            assert_eq!(
                code(sign(&keys, &release, Some(comment))),
                Err(ErrorCode::ReleaseSwapped),
                "{comment}"
            );
        }
        // The comment is signed, too: nobody writes another one under a good signature.
        let older = sign(&keys, &release, Some("version:v0.9.0")).unwrap();
        assert_eq!(code(Some(older.replace("v0.9.0", "v1.0.0"))), Err(ErrorCode::SignatureInvalid));
    }
}
