//! Which version of a program a package manager has installed: read from what dpkg and snapd keep
//! on the disk, so that nothing is executed and no service is woken to ask it. Where neither knows,
//! nobody does.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    time::SystemTime,
};

const DPKG_STATUS: &str = "var/lib/dpkg/status";
const INSTALLED: &str = "install ok installed";

/// What packages say, remembered until dpkg writes its file again: that has megabytes, and is asked
/// whenever a service changes.
#[derive(Debug)]
pub(crate) struct Packages {
    root: PathBuf,
    wanted: Vec<&'static str>,
    read: Option<(SystemTime, u64)>,
    versions: Vec<(&'static str, String)>,
}

impl Packages {
    /// Those of `wanted` under `root`.
    pub(crate) fn under(root: &Path, wanted: Vec<&'static str>) -> Self {
        Self { root: root.to_owned(), wanted, read: None, versions: vec![] }
    }

    /// The version of the first of `names` that is installed, as its makers count.
    pub(crate) fn version(&mut self, names: &[&str]) -> Option<String> {
        self.refresh();
        let version = |name: &&str| self.versions.iter().find(|(known, _)| known == name);
        names.iter().find_map(version).map(|(_, version)| upstream(version).to_owned())
    }

    /// The version of the program that a snap brings.
    pub(crate) fn of_snap(&self, snap: &str) -> Option<String> {
        let meta = self.root.join("snap").join(snap).join("current/meta/snap.yaml");
        let text = std::fs::read_to_string(meta).ok()?;
        let version = text.lines().find_map(|line| line.strip_prefix("version:"))?;
        Some(version.trim().trim_matches(['\'', '"']).to_owned()).filter(|version| !version.is_empty())
    }

    fn refresh(&mut self) {
        let path = self.root.join(DPKG_STATUS);
        let stamp = path.metadata().ok().and_then(|file| Some((file.modified().ok()?, file.len())));
        if self.read == stamp {
            return;
        }
        self.read = stamp;
        self.versions = File::open(path).map_or_else(|_| vec![], |file| installed(file, &self.wanted));
    }
}

/// The wanted packages that are installed, and their versions. Fields of a paragraph are in dpkg's
/// own order: name, status, version.
fn installed(status: File, wanted: &[&'static str]) -> Vec<(&'static str, String)> {
    let (mut package, mut is_installed, mut found) = (None, false, vec![]);
    // A file that is being replaced is a whole one, before or after; what cannot be read ends the search.
    for line in BufReader::new(status).lines().map_while(Result::ok) {
        match line.split_once(": ") {
            Some(("Package", name)) => {
                package = wanted.iter().find(|wanted| **wanted == name).copied();
                is_installed = false;
            }
            Some(("Status", state)) => is_installed = state == INSTALLED,
            Some(("Version", version)) if is_installed => {
                found.extend(package.map(|package| (package, version.to_owned())));
            }
            _ => {}
        }
    }
    found
}

/// Without what Debian counts: the epoch before the colon and the revision behind the last hyphen.
fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, version)| version);
    version.rsplit_once('-').map_or(version, |(version, _)| version)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const STATUS: &str = "\
Package: containerd
Status: deinstall ok config-files
Version: 1.4.13~ds1-1~deb11u4
Conffiles:
 /etc/containerd/config.toml 0123

Package: docker-ce-cli
Status: install ok installed
Version: 5:19.3

Package: docker-ce
Status: install ok installed
Description: Docker
 Version: of the world
Version: 5:24.0.7-1~ubuntu.22.04~jammy
";

    #[test]
    fn a_version_is_that_of_the_package_that_is_installed_as_its_makers_count() {
        let root = tempfile::tempdir().unwrap();
        let status = root.path().join(DPKG_STATUS);
        fs::create_dir_all(status.parent().unwrap()).unwrap();
        fs::write(&status, STATUS).unwrap();
        let mut packages = Packages::under(root.path(), vec!["docker-ce", "docker.io", "containerd"]);
        assert_eq!(packages.version(&["docker.io", "docker-ce"]).as_deref(), Some("24.0.7"));
        assert_eq!(packages.version(&["containerd"]), None, "it is removed, and only its settings stayed");

        fs::write(&status, "Package: docker.io\nStatus: install ok installed\nVersion: 20.10.24+dfsg1-1\n")
            .unwrap();
        assert_eq!(packages.version(&["docker.io", "docker-ce"]).as_deref(), Some("20.10.24+dfsg1"));
    }

    #[test]
    fn a_machine_without_dpkg_or_snaps_has_no_versions() {
        let root = tempfile::tempdir().unwrap();
        let mut packages = Packages::under(root.path(), vec!["podman"]);
        assert_eq!((packages.version(&["podman"]), packages.of_snap("docker")), (None, None));
    }

    #[test]
    fn a_snap_says_its_version_itself() {
        let root = tempfile::tempdir().unwrap();
        let meta = root.path().join("snap/docker/current/meta");
        fs::create_dir_all(&meta).unwrap();
        fs::write(meta.join("snap.yaml"), "name: docker\nversion: '24.0.5'\nsummary: Docker\n").unwrap();
        assert_eq!(Packages::under(root.path(), vec![]).of_snap("docker").as_deref(), Some("24.0.5"));
    }

    #[test]
    fn epochs_and_revisions_are_not_the_makers() {
        assert_eq!(["1.6.20~ds1-1+b1", "5:24.0.7", "1.7"].map(upstream), ["1.6.20~ds1", "24.0.7", "1.7"]);
    }
}
