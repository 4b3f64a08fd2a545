//! Which keys sign and verify tokens, from what is configured and nothing else. With an Ed25519 key, tokens
//! are signed with it, and the HS256 secret counts only if it was given too; without one, the secret does
//! all. What no key is there for is not accepted, whatever a token says of itself.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aio_protocol::error_code::ErrorCode;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use secrecy::{ExposeSecret, SecretString};

use crate::config::{Config, exposure::is_exposed};

const MIN_SECRET_BYTES: usize = 32;

/// Keys by algorithm.
#[derive(Clone)]
pub(crate) struct TokenKeys {
    /// `None` where tokens can only be verified.
    pub(super) signing: Option<(Algorithm, EncodingKey)>,
    pub(super) verifying: Vec<(Algorithm, DecodingKey)>,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Its file cannot be read.
    #[error("cannot read the key {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{path} holds no {expected}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// Others can read it.
    #[error("every user of this machine can read the private key {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The secret is shorter than HS256's hash (RFC 7518, 3.2): it could be guessed from one token.
    #[error(
        "JWT_SECRET is shorter than {MIN_SECRET_BYTES} bytes; `openssl rand -base64 32` makes one that is not"
    )]
    Short,
    /// The two files hold halves of different keys.
    #[error("JWT_PUBLIC_KEY_FILE is not the public half of JWT_PRIVATE_KEY_FILE")]
    Strangers,
}

impl KeyError {
    /// The catalogue's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unreadable { .. } => ErrorCode::FileFailed,
            Self::Exposed { .. } => ErrorCode::SecretExposed,
            Self::Invalid { .. } | Self::Short | Self::Strangers => ErrorCode::ConfigInvalid,
        }
    }
}

impl TokenKeys {
    /// The keys that `config` names, or else the secret that `kept` reads or makes.
    pub(crate) fn load<E: From<KeyError>>(
        config: &Config,
        kept: impl FnOnce() -> Result<SecretString, E>,
    ) -> Result<Self, E> {
        let private = config.jwt_private_key_file.as_deref().map(private).transpose()?;
        let public = config.jwt_public_key_file.as_deref().map(public).transpose()?;
        let (signing, public) = match (private, public) {
            (None, None) => {
                let secret = match &config.jwt_secret {
                    Some(secret) => secret.clone(),
                    None => kept()?,
                };
                return Ok(Self::of_secret(long_enough(&secret)?));
            }
            (Some((_, derived)), Some(given)) if bytes(&derived) != bytes(&given) => {
                return Err(KeyError::Strangers.into());
            }
            (Some((signing, public)), _) => (Some((Algorithm::EdDSA, signing)), public),
            (None, Some(public)) => (None, public),
        };
        let mut verifying = vec![(Algorithm::EdDSA, public)];
        if let Some(secret) = &config.jwt_secret {
            verifying.extend(Self::of_secret(long_enough(secret)?).verifying);
        }
        Ok(Self { signing, verifying })
    }

    /// The keys that verify, in their order.
    pub(crate) fn verifying_bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.verifying.iter().filter_map(|(_, key)| bytes(key))
    }

    pub(super) fn of_secret(secret: &SecretString) -> Self {
        let secret = secret.expose_secret().as_bytes();
        Self {
            signing: Some((Algorithm::HS256, EncodingKey::from_secret(secret))),
            verifying: vec![(Algorithm::HS256, DecodingKey::from_secret(secret))],
        }
    }
}

fn long_enough(secret: &SecretString) -> Result<&SecretString, KeyError> {
    if secret.expose_secret().len() < MIN_SECRET_BYTES { Err(KeyError::Short) } else { Ok(secret) }
}

fn bytes(key: &DecodingKey) -> Option<&[u8]> {
    key.try_get_as_bytes().ok()
}

fn read(path: &Path) -> Result<String, KeyError> {
    fs::read_to_string(path).map_err(|source| KeyError::Unreadable { path: path.to_owned(), source })
}

/// Both halves of the key.
fn private(path: &Path) -> Result<(EncodingKey, DecodingKey), KeyError> {
    let pem = SecretString::from(read(path)?);
    let invalid = || KeyError::Invalid {
        path: path.to_owned(),
        expected: "Ed25519 private key (PEM, PKCS#8): openssl genpkey -algorithm ed25519",
    };
    let pair = rcgen::KeyPair::from_pem(pem.expose_secret()).map_err(|_| invalid())?;
    if is_exposed(path) {
        return Err(KeyError::Exposed { path: path.to_owned() });
    }
    if !pair.is_compatible(&rcgen::PKCS_ED25519) {
        return Err(invalid());
    }
    let signing = EncodingKey::from_ed_pem(pem.expose_secret().as_bytes()).map_err(|_| invalid())?;
    Ok((signing, DecodingKey::from_ed_der(rcgen::PublicKeyData::der_bytes(&pair))))
}

fn public(path: &Path) -> Result<DecodingKey, KeyError> {
    DecodingKey::from_ed_pem(read(path)?.as_bytes()).map_err(|_| KeyError::Invalid {
        path: path.to_owned(),
        expected: "Ed25519 public key (PEM): openssl pkey -in private.pem -pubout",
    })
}
