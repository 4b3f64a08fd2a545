//! The archive: a gzipped tar of one folder, its manifest first. Whatever enters it goes through
//! the redactor here, and nowhere else.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use aio_host::files::FileError;
use flate2::{Compression, write::GzEncoder};
use serde::Serialize;
use tar::{Builder, Header};

use super::{part::Part, redaction::Redactor};

/// Its owner's alone: even without secrets it says much of a machine.
const MODE: u32 = 0o600;

/// What a bundle is, what is in it, and what is not: `manifest.json`, and the command's answer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) created_at: String,
    pub(super) worker: &'static str,
    pub(super) platform: &'static str,
    pub(super) host: String,
    pub(super) root: bool,
    pub(super) gathered: Vec<Gathered>,
    pub(super) missing: Vec<Missing>,
}

/// What is in a bundle.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Gathered {
    pub(super) file: String,
    pub(super) about: &'static str,
    pub(super) bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

/// What is not, and why.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Missing {
    pub(super) file: String,
    pub(super) about: &'static str,
    pub(super) reason: String,
}

/// Fills the manifest, and packs it with the parts into `folder`.
pub(super) fn pack(
    folder: &str,
    manifest: &mut Manifest,
    parts: Vec<Part>,
    redactor: &Redactor,
) -> io::Result<Vec<u8>> {
    let mut texts = Vec::new();
    for Part { file, about, found } in parts {
        let file = redactor.redact(&file);
        match found {
            Ok(content) => {
                let text = redactor.redact(&content.text);
                let note = content.note.map(|note| redactor.redact(&note));
                manifest.gathered.push(Gathered { file: file.clone(), about, bytes: text.len(), note });
                texts.push((file, text));
            }
            Err(reason) => {
                manifest.missing.push(Missing { file, about, reason: redactor.redact(&reason) });
            }
        }
    }
    let overview = serde_json::to_string_pretty(manifest)? + "\n";
    texts.insert(0, ("manifest.json".to_owned(), redactor.redact(&overview)));
    let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    for (file, text) in &texts {
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(MODE);
        header.set_mtime(at);
        archive.append_data(&mut header, format!("{folder}/{file}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()
}

/// Writes a file that was not there before; of a try that fails nothing is left.
pub(super) fn save(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let file = File::options().write(true).create_new(true).mode(MODE).open(path);
    let mut file = file.map_err(FileError::on(path, "create"))?;
    let written = file.write_all(bytes).and_then(|()| hand_over(&file)).and_then(|()| file.sync_all());
    written.map_err(|error| {
        let _ = fs::remove_file(path);
        FileError::on(path, "write")(error)
    })
}

/// Who said `sudo` must be able to read what they are to send.
fn hand_over(file: &File) -> io::Result<()> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    match (number("SUDO_UID"), number("SUDO_GID")) {
        (Some(user), Some(group)) if rustix::process::geteuid().is_root() => {
            std::os::unix::fs::fchown(file, Some(user), Some(group))
        }
        _ => Ok(()),
    }
}
