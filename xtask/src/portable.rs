//! `cargo xtask build`: what is shipped, built so that it runs on the oldest system that the
//! product promises. A program asks for the C library that it was linked with, or a newer one, so
//! it is linked in a root file system of Debian 11, with this computer's Rust and the sources
//! mounted into it. The mounts belong to the build's own namespace and end with it. What is
//! different for another processor stands in `cross`.

mod cross;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use aio_protocol::release::Platform;
use anyhow::{Context, Result, ensure};

use crate::{packages, step};
use cross::Cross;
pub(crate) use cross::{native, triple};

/// Debian 11: systemd 247 and glibc 2.31.
const SUITE: &str = "bullseye";

/// What links Rust programs and compiles the C of their dependencies; for build scripts also where
/// another compiler links the programs.
const PACKAGES: &str = "gcc,libc6-dev";

/// Where sources, toolchain, fetched crates and target lie in it: part of the root's recipe.
const PATHS: &str = "/build";

/// What is built, of what, and into what.
pub(crate) struct Build<'a> {
    /// The folder of the sources.
    pub(crate) source: &'a Path,
    /// Cargo's target folder.
    pub(crate) target: &'a Path,
    /// What the programs are to run on.
    pub(crate) platform: Platform,
    /// What cargo is asked for, one list of words each.
    pub(crate) commands: &'a [&'a [&'a str]],
    /// Variables that the sources read.
    pub(crate) environment: &'a [(&'a str, &'a str)],
}

/// What runs on nodes. Built by itself, it has nothing of what only the controller needs of their
/// dependencies, HTTP/2 above all: 0.8 MB.
const WORKER: &[&str] = &["--release", "--package", "aio-worker"];

const CONTROLLER: &[&str] = &["--release", "--package", "controller-stub"];

/// The installer has a profile of its own.
const INSTALLER: &[&str] = &["--profile", "installer", "--package", "aio-installer"];

/// No part of the default build, because it is not shipped; but the lab's machines load it.
const FAKE_DRIVER: &[&str] = &["--release", "--package", "fake-nvml"];

/// All that is shipped.
pub(crate) const SHIPPED: &[&[&str]] = &[WORKER, CONTROLLER, INSTALLER];

/// Builds everything, and says where it lies. What has been built and is still up to date is left alone.
pub(crate) fn build() -> Result<PathBuf> {
    let built = target()?;
    Build {
        source: &step::root(),
        target: &built,
        platform: native()?,
        commands: &[WORKER, CONTROLLER, INSTALLER, FAKE_DRIVER],
        environment: &[],
    }
    .run()?;
    let programs = folder(&built, native()?, "release")?;
    eprintln!("xtask: built {}", programs.display());
    Ok(programs)
}

/// The target folder of what is shipped.
pub(crate) fn target() -> Result<PathBuf> {
    Ok(step::target_dir()?.join("portable"))
}

/// Where in cargo's `target` the programs of a profile lie.
pub(crate) fn folder(target: &Path, platform: Platform, profile: &str) -> Result<PathBuf> {
    let cross = platform != native()?;
    Ok(if cross { target.join(triple(platform)) } else { target.to_owned() }.join(profile))
}

/// A program that was built, to be run here: for another processor, by an emulator with the C
/// library that it was linked with.
pub(crate) fn program(platform: Platform, path: &Path) -> Result<Command> {
    let Some(cross) = Cross::to(platform)? else { return Ok(step::of_path(path)) };
    packages::install(&[&[packages::Need::Program(cross.emulator, "qemu-user")]])?;
    let mut emulated = step::program(cross.emulator, &["-L"]);
    emulated.arg(root_of(&step::target_dir()?, platform)?.join("usr").join(cross.prefix)).arg(path);
    Ok(emulated)
}

impl Build<'_> {
    pub(crate) fn run(&self) -> Result<()> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "programs that run on Debian 11 are built in a root file system of it, and that takes root; \
             `cargo build --release` builds for this computer's C library and newer ones"
        );
        packages::install(&[packages::ROOT_FILE_SYSTEMS])?;
        let cross = Cross::to(self.platform)?;
        let sysroot = sysroot()?;
        let triple = triple(self.platform);
        ensure!(
            sysroot.join("lib/rustlib").join(triple).is_dir(),
            "this Rust cannot build for {}: `rustup target add {triple}`",
            self.platform
        );
        let root = root_file_system(&step::target_dir()?, self.platform)?;
        // Inside there is no network to be counted on.
        step::run(step::cargo(&["fetch", "--locked"]).current_dir(self.source))?;
        fs::create_dir_all(self.target)
            .with_context(|| format!("cannot create {}", self.target.display()))?;
        let build = |words: &[&str]| -> Result<()> {
            let mut build = step::program("unshare", &["--mount", "sh", "-euc", INSIDE, "sh"]);
            build.arg(&root).arg(self.source).arg(&sysroot).arg(cargo_home()?).arg(self.target);
            build.args(self.environment.iter().map(|(name, value)| format!("{name}={value}")));
            let mut words = words.to_vec();
            if let Some(cross) = &cross {
                build.args(cross.environment(self.platform));
                words.extend(["--target", triple]);
            }
            build.args(["cargo", "build", "--locked", "--offline"]).args(&words);
            eprintln!("xtask: in {}: cargo build --locked --offline {}", root.display(), words.join(" "));
            let status = build.status().context("cannot run unshare")?;
            ensure!(status.success(), "the build in {} ended with {status}", root.display());
            Ok(())
        };
        // Each profile has a folder and a lock of its own, and the end of each build is one thread's work.
        let (release, others): (Vec<&[&str]>, Vec<_>) =
            self.commands.iter().partition(|words| words.contains(&"--release"));
        step::beside(
            || others.iter().try_for_each(|words| build(words)),
            || release.iter().try_for_each(|words| build(words)),
        )
    }
}

/// Sources, toolchain, fetched crates and target have the same paths in every build, because
/// compilers write paths into programs: so the same sources become the same bytes, wherever they
/// lie on a computer.
const INSIDE: &str = r#"
root=$1 source=$2 toolchain=$3 cargo=$4 target=$5
shift 5
mount_at() {
    mkdir -p "$root$2"
    mount --rbind "$1" "$root$2"
}
mount_at /dev /dev
mount_at /proc /proc
mount_at "$source" /build/source
mount_at "$toolchain" /build/toolchain
mount_at "$cargo" /build/cargo
mount_at "$target" /build/target
exec chroot "$root" env --ignore-environment --chdir=/build/source HOME=/root LC_ALL=C.UTF-8 TZ=UTC \
    PATH=/build/toolchain/bin:/usr/bin:/bin CARGO_HOME=/build/cargo CARGO_TARGET_DIR=/build/target "$@"
"#;

/// Where the root file system lies in which programs for this platform are built.
fn root_of(target: &Path, platform: Platform) -> Result<PathBuf> {
    let cross = platform != native()?;
    Ok(if cross { target.join(format!("portable-root-{platform}")) } else { target.join("portable-root") })
}

/// Debian 11 with a compiler; made once, and again when its recipe changes.
fn root_file_system(target: &Path, platform: Platform) -> Result<PathBuf> {
    let root = root_of(target, platform)?;
    let packages = match Cross::to(platform)? {
        Some(cross) => format!("{PACKAGES},{}", cross.packages),
        None => PACKAGES.to_owned(),
    };
    let recipe_file = root.with_extension("recipe");
    let mirror = std::env::var("AIO_BUILD_MIRROR").ok().filter(|mirror| !mirror.is_empty());
    let recipe = format!("{SUITE} {packages} {mirror:?} {PATHS}");
    if root.is_dir() && fs::read_to_string(&recipe_file).is_ok_and(|made| made == recipe) {
        return Ok(root);
    }
    let unfinished = root.with_extension("unfinished");
    let mut outdated = vec![root.clone(), unfinished.clone()];
    if platform == native()? {
        // What was built elsewhere holds the paths from there.
        outdated.push(target.join("portable"));
    }
    for old in outdated {
        if old.exists() {
            fs::remove_dir_all(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    let include = format!("--include={packages}");
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
