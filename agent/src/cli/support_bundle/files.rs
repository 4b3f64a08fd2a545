//! Files of this machine as texts: only plain ones, only so much of each, and never waiting for a
//! pipe. What they mean is for others to say.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use aio_host::layout::{Layout, UNIT};
use rustix::fs::OFlags;

/// More than any file of ours; what is larger is cut.
const MOST_BYTES: u64 = 4 << 20;

/// More reports than a machine leaves.
const MOST_REPORTS: usize = 100;

/// Where units and their drop-ins lie, as systemd.unit(5) lists it, the strongest first.
const UNIT_FOLDERS: [&str; 7] = [
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// Whether a path may be a link. Where another user may write, root reads nothing that a link leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    Links,
    Nothing,
}

/// A file's text; what is no UTF-8 in it is replaced.
pub(super) fn read(path: &Path, follow: Follow) -> io::Result<String> {
    let mut flags = OFlags::NONBLOCK;
    flags.set(OFlags::NOFOLLOW, follow == Follow::Nothing);
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a plain file"));
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The service's unit and its drop-ins, each behind its path, as `systemctl cat` shows them. The
/// drop-ins of all services are among them.
pub(super) fn units(layout: &Layout) -> String {
    let mut text = String::new();
    let mut seen = Vec::new();
    for folder in UNIT_FOLDERS.map(|folder| layout.root().join(folder)) {
        // `/lib` is a link to `/usr/lib` on most systems.
        let Ok(real) = folder.canonicalize() else { continue };
        if seen.contains(&real) {
            continue;
        }
        seen.push(real);
        let drop_ins = [format!("{UNIT}.d"), "service.d".to_owned()].map(|name| folder.join(name));
        for path in
            [vec![folder.join(UNIT)], listed(&drop_ins[0], "conf"), listed(&drop_ins[1], "conf")].concat()
        {
            match read(&path, Follow::Links) {
                Ok(content) => text.push_str(&format!("# {}\n{}\n\n", path.display(), content.trim_end())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => text.push_str(&format!("# {}: {error}\n\n", path.display())),
            }
        }
    }
    text
}

/// The failures in `folder` that the controller could not be told, by name; without the folder
/// there are none. It may be the daemon's user's, so root follows no link, the folder itself
/// included.
pub(super) fn undelivered(folder: &Path) -> io::Result<Vec<(String, io::Result<String>)>> {
    let flags = i32::try_from((OFlags::DIRECTORY | OFlags::NOFOLLOW).bits()).map_err(io::Error::other)?;
    let open = match File::options().read(true).custom_flags(flags).open(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        open => open?,
    };
    // Through what is open, wherever its name leads meanwhile.
    let mut paths = listed(Path::new(&format!("/proc/self/fd/{}", open.as_raw_fd())), "json");
    paths.truncate(MOST_REPORTS);
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(paths.iter().map(|path| (name(path), read(path, Follow::Nothing))).collect())
}

/// The releases that are there, and the one that runs.
pub(super) fn releases(layout: &Layout) -> (Vec<String>, Option<String>) {
    let entries = fs::read_dir(layout.releases()).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut releases: Vec<_> =
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    releases.sort();
    let current = fs::read_link(layout.current()).ok().map(|target| target.display().to_string());
    (releases, current)
}

fn listed(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    paths.sort();
    paths
}
