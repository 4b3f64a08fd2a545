//! Whether a download is the release that the plan promises: size, SHA-256, and the signature by the key that the token carries.
//! Looks at bytes as they pass; touches no file and no network. There is no way to skip a check.

use std::fmt;

use aio_protocol::{
    error_code::ErrorCode,
    installation::InstallationPlan,
    release::{Checksum, ReleaseVersion},
};
use minisign_verify::{PublicKey, Signature, StreamVerifier};
use sha2::{Digest, Sha256};

use crate::failure::Failure;

/// The SHA-256 of `bytes`.
pub(crate) fn checksum(bytes: &[u8]) -> Checksum {
    Checksum::of_digest(Sha256::digest(bytes).into())
}

/// What a release file must be.
#[derive(Clone)]
pub(crate) struct Promise {
    pub(crate) version: ReleaseVersion,
    pub(crate) url: String,
    pub(crate) size: u64,
    pub(crate) checksum: Checksum,
    /// When the token demands one.
    signature: Option<(PublicKey, Signature)>,
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promise")
            .field("url", &self.url)
            .field("size", &self.size)
            .field("checksum", &self.checksum)
            .field("signed", &self.signature.is_some())
            .finish()
    }
}

impl Promise {
    /// What `plan` promises, under the token's release `key`. With a key, a signature that is missing, unreadable or by another key is
    /// refused before a byte is fetched.
    pub(crate) fn of(plan: &InstallationPlan, key: Option<&str>) -> Result<Self, Failure> {
        let url = plan.download_url.as_str();
        let signature = match (key, &plan.signature) {
            (None, _) => None,
            (Some(_), None) => {
                let message =
                    format!("the token demands a signed release, and {} has no signature", plan.version);
                return Err(Failure::new(ErrorCode::SignatureMissing, message).with("url", url));
            }
            (Some(key), Some(signature)) => {
                Some(decode(key, signature).map_err(|reason| unsigned(url, &reason))?)
            }
        };
        Ok(Self {
            version: plan.version.clone(),
            url: url.to_owned(),
            size: plan.size,
            checksum: plan.checksum.clone(),
            signature,
        })
    }

    /// The failure of a body of another size than promised; `actual` in words.
    pub(crate) fn wrong_size(&self, actual: &str) -> Failure {
        let message = format!("{} has {actual}, and the plan says {}", self.url, self.size);
        Failure::new(ErrorCode::SizeMismatch, message).with("size", self.size).with("url", &*self.url)
    }
}

/// Key (base64) and signature (the text of a `.minisig`), which belong together.
fn decode(key: &str, signature: &str) -> Result<(PublicKey, Signature), String> {
    let key = PublicKey::from_base64(key.trim())
        .map_err(|error| format!("the token's release key cannot be read: {error}"))?;
    let signature = Signature::decode(signature)
        .map_err(|error| format!("the plan's signature cannot be read: {error}"))?;
    key.verify_stream(&signature).map_err(|error| error.to_string())?;
    Ok((key, signature))
}

fn unsigned(url: &str, reason: &str) -> Failure {
    let message = format!("the signature of {url} does not hold: {reason}");
    Failure::new(ErrorCode::SignatureInvalid, message).with("url", url)
}

/// The checks of one transfer.
pub(crate) struct Check<'p> {
    promise: &'p Promise,
    received: u64,
    sha256: Sha256,
    signature: Option<StreamVerifier<'p>>,
}

impl<'p> Check<'p> {
    /// No byte has come yet.
    pub(crate) fn new(promise: &'p Promise) -> Result<Self, Failure> {
        let signature = match &promise.signature {
            None => None,
            Some((key, signature)) => Some(
                key.verify_stream(signature).map_err(|error| unsigned(&promise.url, &error.to_string()))?,
            ),
        };
        Ok(Self { promise, received: 0, sha256: Sha256::new(), signature })
    }

    /// Takes the next bytes, and refuses the first one too many.
    pub(crate) fn update(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        self.received += chunk.len() as u64;
        if self.received > self.promise.size {
            return Err(self.promise.wrong_size("more bytes"));
        }
        self.sha256.update(chunk);
        if let Some(signature) = &mut self.signature {
            signature.update(chunk);
        }
        Ok(())
    }

    /// The verdict, once the body has ended.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let promise = self.promise;
        if self.received != promise.size {
            return Err(promise.wrong_size(&format!("{} bytes", self.received)));
        }
        let actual = format!("sha256:{}", hex::encode(self.sha256.finalize()));
        let expected = promise.checksum.to_string();
        if actual != expected {
            let message = format!(
                "{} is not the published file: its checksum is {actual}, and {expected} was expected",
                promise.url
            );
            return Err(Failure::new(ErrorCode::ChecksumMismatch, message)
                .with("expected", expected)
                .with("actual", actual)
                .with("size", promise.size)
                .with("url", &*promise.url));
        }
        match &mut self.signature {
            None => Ok(()),
            Some(signature) => {
                signature.finalize().map_err(|error| unsigned(&promise.url, &error.to_string()))
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn plan_of(bytes: &[u8]) -> InstallationPlan {
        serde_json::from_value(serde_json::json!({
            "nodeId": "69396100cd71623c7bbfbfee", "nodeName": "gpu-01", "status": "pending", "version": "v1.0.0",
            "platform": "linux-amd64", "downloadUrl": "https://releases.example/v1.0.0/linux-amd64",
            "checksum": format!("sha256:{}", hex::encode(Sha256::digest(bytes))), "size": bytes.len(),
            "controllerEndpoint": "wss://aiwm.example/ws/node", "documentationUrl": "https://docs.example",
        }))
        .unwrap()
    }

    fn verdict(promise: &Promise, chunks: &[&[u8]]) -> Result<(), ErrorCode> {
        let mut check = Check::new(promise).map_err(|failure| failure.code)?;
        chunks.iter().try_for_each(|chunk| check.update(chunk)).map_err(|failure| failure.code)?;
        check.finish().map_err(|failure| failure.code)
    }

    #[test]
    fn size_and_sum_are_checked_however_the_bytes_are_cut() {
        let promise = Promise::of(&plan_of(b"release"), None).unwrap();
        assert_eq!(verdict(&promise, &[b"rel", b"", b"ease"]), Ok(()));
        assert_eq!(verdict(&promise, &[b"rel"]), Err(ErrorCode::SizeMismatch));
        assert_eq!(verdict(&promise, &[b"release", b"!"]), Err(ErrorCode::SizeMismatch));
        assert_eq!(verdict(&promise, &[b"releasf"]), Err(ErrorCode::ChecksumMismatch));
    }

    #[test]
    fn a_signature_counts_only_by_the_token_s_key_over_these_bytes() {
        let keys = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let other = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let sign = |keys: &minisign::KeyPair, bytes: &[u8]| {
            minisign::sign(Some(&keys.pk), &keys.sk, bytes, None, None).unwrap().into_string()
        };
        let code = |signature: Option<String>| {
            let plan = InstallationPlan { signature, ..plan_of(b"release") };
            let promise = Promise::of(&plan, Some(&keys.pk.to_base64())).map_err(|failure| failure.code)?;
            verdict(&promise, &[b"release"])
        };
        assert_eq!(code(Some(sign(&keys, b"release"))), Ok(()));
        assert_eq!(code(None), Err(ErrorCode::SignatureMissing));
        assert_eq!(code(Some(sign(&other, b"release"))), Err(ErrorCode::SignatureInvalid));
        assert_eq!(code(Some(sign(&keys, b"another"))), Err(ErrorCode::SignatureInvalid));
        assert_eq!(code(Some("no signature".to_owned())), Err(ErrorCode::SignatureInvalid));
        let unreadable = Promise::of(&plan_of(b"release"), Some("no key"));
        assert_eq!(unreadable.unwrap_err().code, ErrorCode::SignatureMissing);
    }
}
