//! What the tests need of the operating system beside Rust and a C compiler: installed with apt
//! when it is missing, and said so.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use crate::step;

/// How to see that a package is there, and its name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need {
    /// A program, of a package.
    Program(&'static str, &'static str),
    /// A file, of a package.
    File(&'static str, &'static str),
}

/// To make a root file system and work in it.
pub(crate) const ROOT_FILE_SYSTEMS: &[Need] = &[
    Need::Program("mmdebstrap", "mmdebstrap"),
    Need::Program("unshare", "util-linux"),
    // Where the computer runs another distribution than the file system's.
    Need::File("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
];

/// The lab's, beside its root file systems.
pub(crate) const LAB: &[Need] = &[
    Need::Program("systemd-nspawn", "systemd-container"),
    Need::Program("nsenter", "util-linux"),
    Need::Program("ip", "iproute2"),
    Need::Program("socat", "socat"),
    Need::Program("mkfs.ext4", "e2fsprogs"),
    Need::Program("mkfs.xfs", "xfsprogs"),
    Need::Program("ansible-playbook", "ansible-core"),
];

/// To sign releases.
pub(crate) const SIGNING: &[Need] = &[Need::Program("minisign", "minisign")];

/// To look at the pages in a browser.
pub(crate) const BROWSER: &[Need] =
    &[Need::Program("chromium", "chromium"), Need::Program("chromedriver", "chromium-driver")];

/// Of tests that run without the lab.
pub(crate) const CHECKERS: &[Need] = &[
    Need::Program("shellcheck", "shellcheck"),
    Need::Program("minisign", "minisign"),
    Need::Program("groff", "groff-base"),
    Need::Program("sqlite3", "sqlite3"),
    Need::Program("haproxy", "haproxy"),
    Need::Program("nginx", "nginx"),
    Need::Program("pgbouncer", "pgbouncer"),
    Need::Program("faketime", "faketime"),
    // Its servers are started by the tests themselves.
    Need::Program("pg_ctlcluster", "postgresql"),
    Need::Program("lintian", "lintian"),
    Need::Program("promtool", "prometheus"),
    // The reference client of Socket.IO, and the examples of docs/aiwm.md.
    Need::Program("node", "nodejs"),
    Need::Program("npm", "npm"),
    Need::Program("python3", "python3"),
];

impl Need {
    fn package(self) -> &'static str {
        match self {
            Self::Program(_, package) | Self::File(_, package) => package,
        }
    }

    fn met(self) -> bool {
        match self {
            Self::Program(name, _) => step::installed(name),
            Self::File(path, _) => Path::new(path).is_file(),
        }
    }
}

/// Installs what is missing.
pub(crate) fn install(needs: &[&[Need]]) -> Result<()> {
    let mut missing: Vec<_> =
        needs.iter().copied().flatten().filter(|need| !need.met()).map(|need| need.package()).collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !step::installed("apt-get") {
        bail!("this needs {packages} and there is no apt-get to install it with: install it by hand");
    }
    eprintln!("xtask: these packages are missing and will be installed with apt-get: {packages}");
    step::run(&mut apt(&["update"]))?;
    step::run(apt(&["install", "--yes", "--no-install-recommends"]).args(&missing))
}

fn apt(arguments: &[&str]) -> Command {
    if rustix::process::geteuid().is_root() {
        let mut command = step::program("apt-get", arguments);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    } else {
        let mut command = step::program("sudo", &["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        command.args(arguments);
        command
    }
}
