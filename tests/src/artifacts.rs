//! Where the built programs lie, and the releases tree made of them. Builds nothing: a test runs
//! what was built, and says how when it was not.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// The version that the tree of [`Artifacts::write_releases`] carries.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// A folder of built programs.
#[derive(Debug, Clone)]
pub struct Artifacts {
    folder: PathBuf,
}

impl Artifacts {
    /// What is shipped: the folder that `AIO_BIN_DIR` names, or of the two that are built by `cargo
    /// xtask build` (`target/portable/release`) and by `cargo build --release` the one that was
    /// built last.
    pub fn release() -> Result<Self> {
        Self::named_or(|| {
            let target = target_dir()?;
            let (plain, portable) = (target.join("release"), target.join("portable/release"));
            let built =
                |folder: &Path| folder.join("aio-worker").metadata().and_then(|it| it.modified()).ok();
            Ok(if built(&portable) > built(&plain) { portable } else { plain })
        })
    }

    /// What was built together with the running program, or the folder that `AIO_BIN_DIR` names.
    pub fn beside_this_program() -> Result<Self> {
        Self::named_or(profile_dir)
    }

    fn named_or(otherwise: impl FnOnce() -> Result<PathBuf>) -> Result<Self> {
        let folder = match std::env::var_os("AIO_BIN_DIR") {
            Some(folder) => folder.into(),
            None => otherwise()?,
        };
        Ok(Self { folder })
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn find(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        ensure!(
            path.is_file(),
            "{} is not built: run `cargo xtask build` as root; without root `cargo build --release`, `cargo build --release -p fake-nvml` and `cargo build --profile installer -p aio-installer`",
            path.display()
        );
        Ok(path)
    }

    /// The daemon and CLI.
    pub fn worker(&self) -> Result<PathBuf> {
        self.find("aio-worker")
    }

    /// A Debian package, by its name. `cargo xtask deb` makes it beside the programs.
    pub fn package(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.with_file_name("debian");
        let of_name = |path: &PathBuf| {
            let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
            file.starts_with(&format!("{name}_")) && file.ends_with(".deb")
        };
        let found = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        found.into_iter().find(of_name).with_context(|| {
            format!("{} has no package {name}: run `cargo xtask deb` as root", folder.display())
        })
    }

    /// The installer alone. What is shipped of it is built with a profile of its own, and so in a
    /// folder beside the others'.
    pub fn installer(&self) -> Result<PathBuf> {
        const NAME: &str = "aio-installer";
        let shipped =
            self.folder.ends_with("release").then(|| self.folder.with_file_name("installer").join(NAME));
        shipped.filter(|path| path.is_file()).map_or_else(|| self.find(NAME), Ok)
    }

    /// The controller.
    pub fn controller(&self) -> Result<PathBuf> {
        self.find("controller-stub")
    }

    /// The fake `libnvidia-ml.so.1`.
    pub fn fake_nvml(&self) -> Result<PathBuf> {
        self.find("libfake_nvml.so")
    }

    /// Writes the tree that a release server serves: `v1.0.0/linux-amd64` is the worker.
    pub fn write_releases(&self, tree: &Path) -> Result<()> {
        let version = tree.join(VERSION);
        fs::create_dir_all(&version).with_context(|| format!("cannot create {}", version.display()))?;
        for (from, name) in [(self.worker()?, WORKER_FILE), (self.installer()?, INSTALLER_FILE)] {
            fs::copy(&from, version.join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        Ok(())
    }
}

/// The worker's name in a releases tree.
pub const WORKER_FILE: &str = "linux-amd64";
/// The installer's name in a releases tree.
pub const INSTALLER_FILE: &str = "aio-installer-linux-amd64";

/// Cargo's target folder, in which the running program was built.
pub fn target_dir() -> Result<PathBuf> {
    let profile = profile_dir()?;
    Ok(profile.parent().with_context(|| format!("{} has no parent", profile.display()))?.to_owned())
}

/// `target/debug`, or whatever the running program was built as.
fn profile_dir() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find the running program")?;
    let folder = program.parent().context("the running program lies in no folder")?;
    // Test binaries lie one folder deeper than programs.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_owned())
}
