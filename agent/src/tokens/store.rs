//! The tokens that the controller gave in place of the installed one, in the daemon's own state
//! folder: what the operator put in place is root's, and the daemon cannot write it. Each change is
//! durable before it is acted on. Which token is used is decided elsewhere.

use std::path::{Path, PathBuf};

use aio_host::{
    files::{self, FileError},
    token::NodeToken,
};
use secrecy::{ExposeSecret, SecretString};
use tracing::warn;
use uuid::Uuid;

use super::rotation::{Held, Origin};

/// The daemon's alone.
const MODE: u32 = 0o600;

/// Where the rotated tokens are.
#[derive(Debug, Clone)]
pub struct RotatedTokens {
    folder: PathBuf,
}

impl RotatedTokens {
    /// In the daemon's state folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn path(&self, origin: Origin) -> PathBuf {
        self.folder.join(match origin {
            Origin::Candidate => aio_host::layout::CANDIDATE_TOKEN,
            _ => aio_host::layout::KEPT_TOKEN,
        })
    }

    /// Those that are there. One that cannot be read is told of and counts as none: the installed
    /// one is still there.
    pub fn read(&self) -> Vec<Held> {
        [Origin::Kept, Origin::Candidate].into_iter().filter_map(|origin| self.read_one(origin)).collect()
    }

    fn read_one(&self, origin: Origin) -> Option<Held> {
        let path = self.path(origin);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => SecretString::from(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(path = %path.display(), %error, "a rotated token cannot be read");
                return None;
            }
        };
        let mut lines = text.expose_secret().lines();
        let token = NodeToken::parse(&lines.next().unwrap_or_default().into());
        let offer = lines.next().and_then(|line| line.parse().ok());
        match token {
            Ok(token) => Some(Held { origin, offer, token }),
            Err(error) => {
                warn!(path = %path.display(), %error, "a rotated token cannot be used");
                None
            }
        }
    }

    /// Stores an offered token as candidate.
    pub fn store(&self, offer: Uuid, token: &SecretString) -> Result<(), FileError> {
        files::create_dir(&self.folder, 0o750)?;
        let path = self.path(Origin::Candidate);
        let text = format!("{}\n{offer}\n", token.expose_secret());
        files::replace_file(&path, text.as_bytes(), MODE)
    }

    /// The token of this origin was welcomed: the candidate takes the place of the kept one, and
    /// what is older than the welcomed one goes.
    pub fn keep(&self, origin: Origin) -> Result<(), FileError> {
        let (candidate, kept) = (self.path(Origin::Candidate), self.path(Origin::Kept));
        match origin {
            Origin::Candidate => files::rename(&candidate, &kept),
            Origin::Kept => files::remove_file(&candidate).map(drop),
            Origin::Installed => {
                files::remove_file(&candidate)?;
                files::remove_file(&kept).map(drop)
            }
        }
    }

    /// Removes the candidate.
    pub fn discard(&self) -> Result<(), FileError> {
        files::remove_file(&self.path(Origin::Candidate)).map(drop)
    }
}
