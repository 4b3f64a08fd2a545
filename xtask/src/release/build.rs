//! The programs and packages of a release: built from scratch of the committed files alone, in
//! folders whose names are the same on every computer.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aio_protocol::release::{Platform, ReleaseVersion};
use anyhow::{Context, Result, ensure};

use super::source::Source;
use crate::{deb, portable, step};

pub(super) struct Programs {
    pub(super) worker: PathBuf,
    pub(super) installer: PathBuf,
    pub(super) controller: PathBuf,
    /// The folder of the sources that they were built of.
    pub(super) sources: Option<PathBuf>,
    /// Debian packages of them.
    pub(super) packages: Vec<PathBuf>,
}

/// Programs that were built elsewhere.
pub(super) fn taken(folder: &Path) -> Programs {
    Programs {
        worker: folder.join("aio-worker"),
        installer: folder.join("aio-installer"),
        controller: folder.join("controller-stub"),
        sources: None,
        packages: Vec::new(),
    }
}

/// Builds them for `platform`; `key` is built in.
pub(super) fn built(
    source: &Source,
    version: &ReleaseVersion,
    platform: Platform,
    key: Option<&str>,
) -> Result<Programs> {
    // Beside what tests use, which must not demand the release's key; and from scratch, so that
    // nothing older gets in.
    let place = step::target_dir()?.join("shipped");
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    }
    let (sources, target) = (place.join("source"), place.join("target"));
    source.export(&sources)?;
    let (commit, epoch) = (source.short_commit(), source.epoch().to_string());
    let mut environment = vec![("AIO_BUILD_COMMIT", &*commit), ("SOURCE_DATE_EPOCH", &*epoch)];
    environment.extend(key.map(|key| ("AIO_BUILT_IN_RELEASE_KEY", key)));
    portable::Build {
        source: &sources,
        target: &target,
        platform,
        commands: portable::SHIPPED,
        environment: &environment,
    }
    .run()?;
    let released = portable::folder(&target, platform, "release")?;
    let worker = released.join("aio-worker");
    let installer = portable::folder(&target, platform, "installer")?.join("aio-installer");
    let controller = released.join("controller-stub");
    let number = version.to_string();
    for program in [&worker, &installer, &controller] {
        says(platform, program, number.trim_start_matches('v'), &commit)?;
    }
    let packages = deb::Packing { source: &sources, target: &target, platform, time: &epoch }.run()?;
    Ok(Programs { worker, installer, controller, sources: Some(sources), packages })
}

/// The compiler's version, e.g. `1.95.0`.
pub(super) fn rust() -> Result<String> {
    let output = step::program("rustc", &["--version"]).output().context("cannot run rustc")?;
    let said = String::from_utf8(output.stdout).context("rustc says its version in no text")?;
    Ok(said.split(' ').nth(1).context("rustc does not say its version")?.to_owned())
}

/// Fails unless the program says that it is of this version and commit.
fn says(platform: Platform, program: &Path, version: &str, commit: &str) -> Result<()> {
    let output = portable::program(platform, program)?.arg("--version").output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        said.contains(&format!(" {version} (")) && said.contains(&format!(", commit {commit})")),
        "{} should be version {version} of commit {commit}, and says `{}`",
        program.display(),
        said.trim()
    );
    Ok(())
}
