//! `cargo xtask release`: builds what is shipped of the committed sources, and writes the folder of
//! its version that release servers hand out: `v1.0.0/linux-amd64` and what vouches for it. With a
//! key, it also signs the index of all versions in the tree. This file decides the order; each part
//! stands in a file of its own. It publishes nothing.

mod build;
mod folder;
mod index;
mod key;
mod licences;
mod program;
mod sbom;
mod source;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
};

use aio_protocol::release::{
    Platform, ReleaseVersion,
    folder::LICENCES,
    index::{INDEX, KeyId, ReleaseIndex},
    label,
};
use anyhow::{Context, Result, ensure};

use crate::{portable, step};
use folder::{Contents, File};
use index::Changes;
use key::Key;
use source::Source;
use tree::Tree;

/// Which release, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The version: `v` and the one in the root Cargo.toml
    #[arg(long, value_name = "VERSION", required_unless_present = "index")]
    version: Option<ReleaseVersion>,
    /// Build nothing: sign a fresh index of what lies in the tree, as before the present one expires
    #[arg(long, conflicts_with_all = ["version", "public_key", "platform", "add", "allow_dirty", "programs"], requires = "key")]
    index: bool,
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
    #[command(flatten)]
    indexing: Indexing,
}

/// What the index says from now on, beside what it said before.
#[derive(Debug, clap::Args)]
struct Indexing {
    /// Index: the oldest version that is installed from now on; older ones are left out, and nodes
    /// do not go back below it
    #[arg(long, value_name = "VERSION", requires = "key")]
    floor: Option<ReleaseVersion>,
    /// Index: believe this key no more, whatever it has signed; may be given several times
    #[arg(long, value_name = "KEYID", requires = "key")]
    revoke: Vec<KeyId>,
    /// Index: believe this public key, too, its file or its line of base64; may be given several times
    #[arg(long, value_name = "KEY", requires = "key")]
    next_key: Vec<String>,
    /// Index: the oldest version that can be updated to this release in one step
    #[arg(long, value_name = "VERSION", requires = "key", conflicts_with = "index")]
    oldest_from: Option<ReleaseVersion>,
    /// Index: go on from one that another key has signed, though it does not name this key
    #[arg(long, requires = "key")]
    lost_key: bool,
}

impl Indexing {
    fn changes(&self, version: Option<&ReleaseVersion>) -> Result<Changes> {
        Ok(Changes {
            floor: self.floor.clone(),
            revoke: self.revoke.clone(),
            next_keys: self.next_key.iter().map(|it| key::public(it)).collect::<Result<_>>()?,
            oldest_from: version.cloned().zip(self.oldest_from.clone()),
            lost_key: self.lost_key,
        })
    }
}

/// The folders of the programs' packages, and what stands before the platform in their files' names.
const WORKER: (&str, &str) = ("agent", "");
const INSTALLER: (&str, &str) = ("installer", label::INSTALLER_PREFIX);

/// Signed by the sums alone: no installer fetches it.
const CONTROLLER: (&str, &str) = ("controller-stub", "controller-stub-");

/// What the names of the worker's units begin with, in the folder `systemd`.
const UNITS: &str = "aio-worker";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let output = std::path::absolute(&arguments.output).context("cannot tell where --output is")?;
    match &arguments.version {
        Some(version) => build(arguments, version, &output),
        None => renew(arguments, &output),
    }
}

/// Signs an index of what lies in `output`.
fn renew(arguments: &Arguments, output: &Path) -> Result<()> {
    let key = Key::of(arguments.key.as_deref(), None)?;
    let changes = arguments.indexing.changes(None)?;
    let tree = Tree::open(output, &key, &changes)?;
    say_index(&tree.sign(&key, &changes)?, output);
    Ok(())
}

fn build(arguments: &Arguments, version: &ReleaseVersion, output: &Path) -> Result<()> {
    let stands = env!("CARGO_PKG_VERSION");
    ensure!(
        version.to_string() == format!("v{stands}"),
        "the workspace is version {stands}, so its release is v{stands}, and not {version}: \
         to release {version}, write its number as `version` into the root Cargo.toml first"
    );
    folder::ensure_room(output, version, arguments.add)?;
    let source = Source::of(&step::root(), arguments.allow_dirty)?;
    let key = Key::of(arguments.key.as_deref(), arguments.public_key.as_deref())?;
    let changes = arguments.indexing.changes(Some(version))?;
    let tree = if key.signs() { Some(Tree::open(output, &key, &changes)?) } else { None };

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
    let (_, prefix) = CONTROLLER;
    files.push(File::unsigned_program(format!("{prefix}{platform}"), &programs.controller, platform)?);
    let root = step::root();
    for unit in units(programs.sources.as_deref().unwrap_or(&root))? {
        files.push(File::copy(&unit)?);
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
    let folder = folder::write(contents, output, arguments.add)?;
    eprintln!("xtask: wrote {}", folder.display());
    say_who_vouches(&key, &folder);
    match tree {
        Some(tree) => say_index(&tree.sign(&key, &changes)?, output),
        None if output.join(INDEX).exists() => {
            eprintln!("xtask: {} does not name {version}, which is not signed", output.join(INDEX).display());
        }
        None => {}
    }
    Ok(())
}

/// What a worker is installed with beside its program, so that an older updater can install the
/// units that this version needs.
fn units(sources: &Path) -> Result<Vec<PathBuf>> {
    let folder = sources.join("systemd");
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        if entry.file_name().to_string_lossy().starts_with(UNITS) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn say_index(index: &ReleaseIndex, tree: &Path) {
    let versions: Vec<_> = index.releases.keys().map(ToString::to_string).collect();
    eprintln!(
        "xtask: signed {}: serial {}, expires {}, {}",
        tree.join(INDEX).display(),
        index.serial,
        index.expires_at,
        versions.join(" ")
    );
}

fn say_who_vouches(key: &Key, folder: &Path) {
    match (key.signs(), key.public()) {
        (true, Some(public)) => eprintln!("xtask: signed; controllers need RELEASE_PUBLIC_KEY={public}"),
        _ => {
            eprintln!("xtask: NOT SIGNED: nothing but its sums vouches for {}; give --key", folder.display());
        }
    }
}
