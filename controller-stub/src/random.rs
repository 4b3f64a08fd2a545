//! What must not be guessed: secrets and ids, from the cryptography provider's generator.

use aio_protocol::{ids::NodeId, time::Timestamp};
#[cfg(feature = "pages")]
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{Engine, engine::general_purpose::STANDARD};

/// There was no randomness to be had.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub(crate) struct NoRandomness;

fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// 256 bits as text.
pub(crate) fn secret() -> Result<String, NoRandomness> {
    Ok(STANDARD.encode(bytes::<32>()?))
}

/// 256 bits as a word that addresses and cookies hold.
#[cfg(feature = "pages")]
pub(crate) fn word() -> Result<String, NoRandomness> {
    Ok(URL_SAFE_NO_PAD.encode(bytes::<32>()?))
}

/// An id as MongoDB makes them, which AIWM's own are: four bytes of seconds, eight of chance.
pub(crate) fn object_id(now: Timestamp) -> Result<NodeId, NoRandomness> {
    let mut id = bytes::<12>()?;
    let seconds = u32::try_from(now.as_millis() / 1000).unwrap_or(u32::MAX);
    for (byte, second) in id.iter_mut().zip(seconds.to_be_bytes()) {
        *byte = second;
    }
    Ok(NodeId::from_bytes(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_secrets_differ_and_an_id_begins_with_its_second() {
        let noon = Timestamp::from_millis(1_765_454_400_000);
        let id = object_id(noon).unwrap();
        assert!(id.as_str().starts_with("693ab240"), "{id}");
        assert_ne!(id, object_id(noon).unwrap());
        assert_ne!(secret().unwrap(), secret().unwrap());
        assert_eq!(STANDARD.decode(secret().unwrap()).unwrap().len(), 32);
    }
}
