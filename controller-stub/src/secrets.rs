//! The three secrets: given, or made on first start and kept in files that only their owner can read. There
//! is no default.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use aio_protocol::error_code::ErrorCode;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::{
    config::{Config, exposure::is_exposed},
    noti::signature::{InvalidSecret, SECRET_PREFIX},
    random,
    tokens::keys::{KeyError, TokenKeys},
};

/// What signs tokens, signs events and opens NOTI.
pub(crate) struct Secrets {
    pub tokens: TokenKeys,
    pub noti_webhook: SecretString,
    pub noti_service_token: SecretString,
}

/// Why there are no secrets.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file or folder cannot be read or made.
    #[error("cannot keep the secret {path}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A secret's file is empty or not text.
    #[error("{path} holds no secret; restore it, or delete it to have another made, which ends every token")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A secret's file can be read by others.
    #[error("every user of this machine can read the secret {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// There was no randomness to be had.
    #[error("cannot make a secret")]
    Random(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A key that signs or verifies tokens cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The webhook secret cannot be read.
    #[error("NOTI_WEBHOOK_SECRET cannot be used")]
    Webhook(#[from] InvalidSecret),
}

impl SecretsError {
    /// The catalogue's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::File { .. } | Self::Empty { .. } => ErrorCode::FileFailed,
            Self::Exposed { .. } => ErrorCode::SecretExposed,
            Self::Random(_) => ErrorCode::Internal,
            Self::Key(error) => error.code(),
            Self::Webhook(_) => ErrorCode::ConfigInvalid,
        }
    }
}

impl Secrets {
    /// Takes the secrets that `config` gives and reads or makes the others. Two processes that do
    /// so at once get the same.
    pub(crate) fn load(config: &Config) -> Result<Self, SecretsError> {
        Self::gather(config, kept)
    }

    /// Says whether `load` would find usable secrets, and makes none.
    pub(crate) fn check(config: &Config) -> Result<Self, SecretsError> {
        Self::gather(config, kept_or_passing)
    }

    /// Tells whether another controller has the same secrets. From it nobody learns one.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"the secrets of a controller\0");
        for secret in [&self.noti_webhook, &self.noti_service_token] {
            hash.update(Sha256::digest(secret.expose_secret()));
        }
        self.tokens.verifying_bytes().for_each(|key| hash.update(Sha256::digest(key)));
        hex::encode(hash.finalize())
    }

    fn gather(config: &Config, kept: Keeper) -> Result<Self, SecretsError> {
        let folder = config.data_dir.join("secrets");
        Ok(Self {
            tokens: TokenKeys::load(config, || kept(&folder.join("jwt-secret"), ""))?,
            noti_webhook: match &config.noti_webhook_secret {
                Some(secret) => secret.clone(),
                None => kept(&folder.join("noti-webhook-secret"), SECRET_PREFIX)?,
            },
            noti_service_token: match &config.noti_service_token {
                Some(secret) => secret.clone(),
                None => kept(&folder.join("noti-service-token"), "")?,
            },
        })
    }
}

/// Reads the secret of a file; what it does when there is none is its own.
type Keeper = fn(path: &Path, prefix: &str) -> Result<SecretString, SecretsError>;

fn kept_or_passing(path: &Path, prefix: &str) -> Result<SecretString, SecretsError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = random::secret().map_err(|error| SecretsError::Random(Box::new(error)))?;
            Ok(SecretString::from(format!("{prefix}{secret}")))
        }
        Err(source) => Err(SecretsError::File { path: path.to_owned(), source }),
        Ok(text) => read(path, &text),
    }
}

fn kept(path: &Path, prefix: &str) -> Result<SecretString, SecretsError> {
    let failed = |source| SecretsError::File { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(text) => read(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = random::secret().map_err(|error| SecretsError::Random(Box::new(error)))?;
            make(path, &format!("{prefix}{secret}\n")).map_err(failed)?;
            // Another process may have been faster: what lies there now is the secret.
            read(path, &fs::read_to_string(path).map_err(failed)?)
        }
        Err(error) => Err(failed(error)),
    }
}

fn read(path: &Path, text: &str) -> Result<SecretString, SecretsError> {
    match text.trim() {
        "" => Err(SecretsError::Empty { path: path.to_owned() }),
        _ if is_exposed(path) => Err(SecretsError::Exposed { path: path.to_owned() }),
        secret => Ok(SecretString::from(secret)),
    }
}

/// Puts a file in place whole and durable, or leaves the one that is there.
pub(crate) fn make(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // A temporary file is its owner's alone (0600) from the start.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => fs::File::open(folder)?.sync_all(),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn secrets_are_made_once_and_are_their_owners_alone() {
        let data = tempfile::tempdir().unwrap();
        let config = Config::new(data.path().join("new/folder"));
        let (first, second) = (Secrets::load(&config).unwrap(), Secrets::load(&config).unwrap());
        assert_eq!(first.noti_service_token.expose_secret(), second.noti_service_token.expose_secret());
        let jwt_secret = fs::read_to_string(config.data_dir.join("secrets/jwt-secret")).unwrap();
        assert!(first.noti_webhook.expose_secret().starts_with("whsec_"));
        assert_ne!(jwt_secret.trim(), first.noti_service_token.expose_secret());
        for name in ["jwt-secret", "noti-webhook-secret", "noti-service-token"] {
            let file = config.data_dir.join("secrets").join(name);
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
        let folder = config.data_dir.join("secrets");
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(folder).unwrap().count(), 3, "no temporary file is left");
    }

    #[test]
    fn a_given_secret_is_taken_and_not_written_down() {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::new(data.path());
        config.jwt_secret = Some(SecretString::from("given by the operator, and long enough"));
        config.noti_service_token = Some(SecretString::from("given-by-the-operator, too"));
        let secrets = Secrets::load(&config).unwrap();
        assert_eq!(secrets.noti_service_token.expose_secret(), "given-by-the-operator, too");
        for name in ["jwt-secret", "noti-service-token"] {
            assert!(!data.path().join("secrets").join(name).exists(), "{name}");
        }
    }

    #[test]
    fn a_check_makes_nothing_and_finds_what_cannot_be_used() {
        let data = tempfile::tempdir().unwrap();
        let config = Config::new(data.path().join("new"));
        Secrets::check(&config).unwrap();
        assert!(!config.data_dir.exists());
        Secrets::load(&config).unwrap();
        fs::write(config.data_dir.join("secrets/noti-service-token"), " ").unwrap();
        assert!(matches!(Secrets::check(&config), Err(SecretsError::Empty { .. })));
    }

    #[test]
    fn a_secret_that_others_can_read_or_guess_is_refused_by_the_start_and_by_the_check() {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::new(data.path());
        Secrets::load(&config).unwrap();
        let file = data.path().join("secrets/noti-service-token");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        for refused in [Secrets::load(&config).err(), Secrets::check(&config).err()] {
            assert_eq!(refused.map(|error| error.code()), Some(ErrorCode::SecretExposed));
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        Secrets::check(&config).unwrap();

        config.jwt_secret = Some(SecretString::from("x".repeat(31)));
        let refused = Secrets::check(&config).err().unwrap();
        assert_eq!(refused.code(), ErrorCode::ConfigInvalid);
        assert!(refused.to_string().contains("32 bytes"), "{refused}");
        config.jwt_secret = Some(SecretString::from("x".repeat(32)));
        Secrets::check(&config).unwrap();
        config.jwt_secret = None;
        fs::write(data.path().join("secrets/jwt-secret"), "short").unwrap();
        assert_eq!(Secrets::load(&config).err().map(|error| error.code()), Some(ErrorCode::ConfigInvalid));
    }

    #[test]
    fn an_emptied_secret_is_an_error_and_not_replaced() {
        let data = tempfile::tempdir().unwrap();
        let config = Config::new(data.path());
        Secrets::load(&config).unwrap();
        let file = data.path().join("secrets/jwt-secret");
        fs::write(&file, "\n").unwrap();
        assert!(matches!(Secrets::load(&config), Err(SecretsError::Empty { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), "\n");
    }
}
