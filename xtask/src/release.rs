//! `cargo xtask release`: builds what is shipped of the committed sources, and writes the folder of
//! its version that release servers hand out: `v1.0.0/linux-amd64` and what vouches for it. This
//! file decides the order; each part stands in a file of its own. It publishes nothing.

mod build;
mod folder;
mod key;
mod licences;
mod program;
mod sbom;
mod source;

use std::path::{Path, PathBuf};

use aio_protocol::release::{Platform, ReleaseVersion, folder::LICENCES, label};
use anyhow::{Context, Result, ensure};

use crate::{portable, step};
use folder::{Contents, File};
use key::Key;
use source::Source;

/// Which release, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The version: `v` and the one in the root Cargo.toml
    #[arg(long, value_name = "VERSION")]
    version: ReleaseVersion,
    /// Sign with this secret key of minisign, and build its public half in; the key's password, if
    /// any, is read from standard input
    #[arg(long, value_name = "FILE", conflicts_with = "public_key")]
    key: Option<PathBuf>,
    /// Build this public key in and sign nothing, as when somebody else's release is built again:
    /// its file or its line of base64
    #[arg(long, value_name = "KEY")]
    public_key: Option<String>,
    /// The tree of releases, into which the version's folder is put
    #[arg(long, value_name = "DIR", default_value = "releases")]
    output: PathBuf,
    /// Build for this platform: linux-amd64 or linux-arm64; this computer's if unsaid
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Add the platform to the version's folder, which holds another one of the same commit
    #[arg(long)]
    add: bool,
    /// Build of what git follows as it is now, whether it is committed or not; the release says so
    #[arg(long)]
    allow_dirty: bool,
    /// Take `aio-worker` and `aio-installer` from here, built elsewhere, in place of building them;
    /// without packages and lists of what they were built of
    #[arg(long, value_name = "DIR", hide = true)]
    programs: Option<PathBuf>,
}

/// The folders of the programs' packages, and what stands before the platform in their files' names.
const WORKER: (&str, &str) = ("agent", "");
const INSTALLER: (&str, &str) = ("installer", label::INSTALLER_PREFIX);

/// Published in its Debian package alone.
const CONTROLLER: (&str, &str) = ("controller-stub", "controller-stub-");

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let version = &arguments.version;
    let stands = env!("CARGO_PKG_VERSION");
    ensure!(
        version.to_string() == format!("v{stands}"),
        "the workspace is version {stands}, so its release is v{stands}, and not {version}: \
         to release {version}, write its number as `version` into the root Cargo.toml first"
    );
    let output = std::path::absolute(&arguments.output).context("cannot tell where --output is")?;
    folder::ensure_room(&output, version, arguments.add)?;
    let source = Source::of(&step::root(), arguments.allow_dirty)?;
    let key = Key::of(arguments.key.as_deref(), arguments.public_key.as_deref())?;

    let mut files = Vec::new();
    let programs = match &arguments.programs {
        Some(folder) => build::taken(folder),
        None => {
            let platform = arguments.platform.map_or_else(portable::native, Ok)?;
            build::built(&source, version, platform, key.public())?
        }
    };
    let platform = program::platform(&programs.worker)?;
    if let Some(asked) = arguments.platform {
        ensure!(platform == asked, "{} is for {platform}, and not {asked}", programs.worker.display());
    }
    for ((_, prefix), path) in [(WORKER, &programs.worker), (INSTALLER, &programs.installer)] {
        files.push(File::program(format!("{prefix}{platform}"), path, platform)?);
    }
    if let Some(sources) = &programs.sources {
        for (package, prefix) in [WORKER, INSTALLER, CONTROLLER] {
            let text = sbom::of(package, sources, platform, source.epoch())?;
            files.push(File::text(format!("{prefix}{platform}.cdx.json"), text));
        }
    }
    files.push(File::text(LICENCES.to_owned(), licences::text()?));
    for package in &programs.packages {
        files.push(File::copy(package)?);
    }
    let contents = Contents {
        version: version.clone(),
        source: &source,
        key: &key,
        platform,
        rust: build::rust()?,
        files,
    };
    let folder = folder::write(contents, &output, arguments.add)?;
    eprintln!("xtask: wrote {}", folder.display());
    say_who_vouches(&key, &folder);
    Ok(())
}

fn say_who_vouches(key: &Key, folder: &Path) {
    match (key.signs(), key.public()) {
        (true, Some(public)) => eprintln!("xtask: signed; controllers need RELEASE_PUBLIC_KEY={public}"),
        _ => {
            eprintln!("xtask: NOT SIGNED: nothing but its sums vouches for {}; give --key", folder.display());
        }
    }
}
