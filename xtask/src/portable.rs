//! `cargo xtask build`: what is shipped, built so that it runs on the oldest system that the product promises. A program asks for the C
//! library that it was linked with, or a newer one, so it is linked in a root file system of Debian 11, with this computer's Rust and
//! this repository mounted into it. The mounts belong to the build's own namespace and end with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{packages, step};

/// Debian 11: systemd 247 and glibc 2.31.
const SUITE: &str = "bullseye";

/// What links Rust programs and compiles the C of their dependencies.
const PACKAGES: &str = "gcc,libc6-dev";

/// Builds everything, and says where it lies. What has been built and is still up to date is left alone.
pub(crate) fn build() -> Result<PathBuf> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "programs that run on Debian 11 are built in a root file system of it, and that takes root; \
         `cargo build --release` builds for this computer's C library and newer ones"
    );
    packages::install(&[packages::ROOT_FILE_SYSTEMS])?;
    let target = step::target_dir()?;
    let root = root_file_system(&target)?;
    // Inside there is no network to be counted on.
    step::run(&mut step::cargo(&["fetch", "--locked"]))?;
    let built = target.join("portable");
    fs::create_dir_all(&built).with_context(|| format!("cannot create {}", built.display()))?;
    let mut build = step::program("unshare", &["--mount", "sh", "-euc", INSIDE, "sh"]);
    build.arg(&root).arg(step::root()).arg(sysroot()?).arg(cargo_home()?).arg(&built);
    eprintln!("xtask: in {}: cargo build --release --locked --offline", root.display());
    let status = build.status().context("cannot run unshare")?;
    ensure!(status.success(), "the build in {} ended with {status}", root.display());
    let programs = built.join("release");
    eprintln!("xtask: built {}", programs.display());
    Ok(programs)
}

/// Folders keep their paths, so that what compilers say about them is true outside too. The fake driver is no part of the default
/// build, because it is not shipped, but the lab's machines load it; the installer has a profile of its own.
const INSIDE: &str = r#"
root=$1 repository=$2 sysroot=$3 cargo_home=$4 built=$5
for folder in /dev /proc "$repository" "$sysroot" "$cargo_home" "$built"; do
    mkdir -p "$root$folder"
    mount --rbind "$folder" "$root$folder"
done
inside() {
    chroot "$root" env --ignore-environment --chdir="$repository" HOME=/root PATH="$sysroot/bin:/usr/bin:/bin" \
        CARGO_HOME="$cargo_home" CARGO_TARGET_DIR="$built" "$@"
}
inside cargo build --release --locked --offline
inside cargo build --profile installer --locked --offline --package aio-installer
inside cargo build --release --locked --offline --package fake-nvml
"#;

/// Debian 11 with a compiler; made once, and again when its recipe changes.
fn root_file_system(target: &Path) -> Result<PathBuf> {
    let root = target.join("portable-root");
    let recipe_file = target.join("portable-root.recipe");
    let mirror = std::env::var("AIO_BUILD_MIRROR").ok().filter(|mirror| !mirror.is_empty());
    let recipe = format!("{SUITE} {PACKAGES} {mirror:?}");
    if root.is_dir() && fs::read_to_string(&recipe_file).is_ok_and(|made| made == recipe) {
        return Ok(root);
    }
    let unfinished = target.join("portable-root.unfinished");
    for old in [&root, &unfinished] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    let include = format!("--include={PACKAGES}");
    let mut make =
        step::program("mmdebstrap", &["--quiet", "--variant=minbase", &include, "--format=directory", SUITE]);
    step::run(make.arg(&unfinished).args(mirror))?;
    fs::rename(&unfinished, &root).with_context(|| format!("cannot put {} in place", root.display()))?;
    fs::write(&recipe_file, recipe).with_context(|| format!("cannot write {}", recipe_file.display()))?;
    Ok(root)
}

/// The toolchain itself, because rustup's own programs would look for more than is mounted.
fn sysroot() -> Result<PathBuf> {
    let rustc = step::program("rustc", &["--print", "sysroot"]).output().context("cannot run rustc")?;
    ensure!(rustc.status.success(), "rustc does not say where it lies");
    let path = PathBuf::from(String::from_utf8(rustc.stdout).context("rustc lies at no text")?.trim());
    ensure!(
        path.join("bin/cargo").is_file() && path != Path::new("/usr"),
        "{} has no toolchain that can be used in another root file system: install Rust with rustup",
        path.display()
    );
    Ok(path)
}

/// Where cargo keeps what it has fetched.
fn cargo_home() -> Result<PathBuf> {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let usual = || std::env::home_dir().map(|home| home.join(".cargo"));
    named.or_else(usual).context("neither CARGO_HOME nor HOME says where cargo keeps what it has fetched")
}
