//! `aio-worker support-bundle`: one archive with what is needed to find out why a node does not
//! work, and without its secrets. Where it goes and what is said of it stands here; `gather` asks,
//! `redaction` takes out, `archive` packs.

mod archive;
mod files;
mod gather;
mod journal;
mod part;
mod redaction;
#[cfg(test)]
mod tests;
mod tokens;

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use aio_host::layout::Layout;
use aio_installer::cli::{Failure, Output, print};
use aio_protocol::{error_code::ErrorCode, release::build, time::Timestamp};

use self::{
    archive::{Gathered, Manifest, Missing},
    gather::Subject,
};
use super::answer::{Answer, internal, runtime};
use crate::config::{environment, runtime_dir};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Run it with sudo: without root it gathers what you may read, and says what is missing. Tokens and passwords are replaced by \
[redacted]; host names, addresses and paths are not. Nothing on the machine is changed, and nothing is sent anywhere.\n\n\
Exit status: 0 the archive is written, whatever is missing in it; 73 or 74 it could not be written.")]
pub(super) struct Arguments {
    /// Where to write the archive; `-` is standard output [default: aio-worker-support-HOST-TIME.tar.gz]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) answer: Answer,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let now = jiff::Timestamp::now();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let folder = folder_name(host, now);
    let path = arguments.file.clone().unwrap_or_else(|| format!("{folder}.tar.gz").into());
    let to_stdout = path == Path::new("-");
    // Before half a minute is spent on it.
    if to_stdout && std::io::stdout().is_terminal() {
        let message = "the archive is not for a screen: send standard output to a file or a program";
        return Err(Failure::new(ErrorCode::Usage, message));
    }
    if !to_stdout && path.symlink_metadata().is_ok() {
        let message = format!("{} is there already, and is not overwritten", path.display());
        return Err(Failure::new(ErrorCode::FileFailed, message));
    }
    let subject = Subject {
        layout: Layout::default(),
        runtime_dir: runtime_dir(None, &environment),
        token: environment("AIO_NODE_TOKEN"),
        nvml_library: environment("AIO_NVML_LIBRARY").filter(|path| !path.is_empty()).map(PathBuf::from),
        root: rustix::process::geteuid().is_root(),
    };
    let runtime = runtime()?;
    let (parts, redactor) = runtime.block_on(gather::gather(&subject));
    // A disk or a driver that hangs must not keep the rest back.
    runtime.shutdown_background();
    let mut manifest = Manifest {
        created_at: Timestamp::from(SystemTime::now()).to_string(),
        worker: build::number(),
        platform: build::platform(),
        host: host.to_owned(),
        root: subject.root,
        gathered: Vec::new(),
        missing: Vec::new(),
    };
    let archive = archive::pack(&folder, &mut manifest, parts, &redactor)
        .map_err(|error| internal(format!("the archive could not be packed: {error}")))?;
    if to_stdout {
        // Who reads no further has no archive: other than with an answer, that is a failure.
        let mut out = std::io::stdout().lock();
        let written = out.write_all(&archive).and_then(|()| out.flush());
        written.map_err(|error| {
            Failure::new(ErrorCode::FileFailed, format!("could not write the archive: {error}"))
        })?;
    } else {
        archive::save(&path, &archive)?;
    }
    let text = match arguments.answer.output {
        Output::Text => screen(&path, archive.len(), &manifest),
        Output::Json => answer(&path, archive.len(), &manifest)?,
    };
    // Standard output is the archive's where that goes there.
    if to_stdout {
        // Nobody may be there to read it.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
        return Ok(());
    }
    print(&text)
}

/// Also the archive's name, without its ending.
fn folder_name(host: &str, now: jiff::Timestamp) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '-' };
    let host: String = host.trim_start_matches(['.', '-']).chars().map(kept).collect();
    let host = if host.is_empty() { "unnamed" } else { &host };
    format!("aio-worker-support-{host}-{}", now.strftime("%Y%m%dT%H%M%SZ"))
}

fn answer(path: &Path, bytes: usize, manifest: &Manifest) -> Result<String, Failure> {
    let answer = serde_json::json!({ "file": path, "bytes": bytes, "manifest": manifest });
    Ok(format!("{answer}\n"))
}

fn screen(path: &Path, bytes: usize, manifest: &Manifest) -> String {
    let kib = bytes.div_ceil(1024);
    let place = if path == Path::new("-") { "standard output".into() } else { path.display().to_string() };
    let mut text = format!("{place} ({kib} KiB) holds\n");
    let mut row = |file: &str, about: &str| text.push_str(&format!("  {file:<22} {about}\n"));
    row("manifest.json", "this list");
    for Gathered { file, about, note, .. } in &manifest.gathered {
        row(file, about);
        if let Some(note) = note {
            row("", note);
        }
    }
    if !manifest.missing.is_empty() {
        text.push_str("and not\n");
    }
    for Missing { file, reason, .. } in &manifest.missing {
        text.push_str(&format!("  {file:<22} {reason}\n"));
    }
    if !manifest.root {
        text.push_str("Run it with sudo to gather what this user may not read.\n");
    }
    text.push_str("Tokens and passwords are replaced by [redacted]. Have a look before you send it.\n");
    text
}
