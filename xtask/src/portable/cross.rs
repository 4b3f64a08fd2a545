//! Building for another processor than this computer's: Debian's cross compiler links, and an
//! emulator runs what was built.

use aio_protocol::release::Platform;
use anyhow::{Context, Result};

/// What this computer runs.
pub(crate) fn native() -> Result<Platform> {
    let architecture = std::env::consts::ARCH;
    Platform::of_architecture(architecture)
        .with_context(|| format!("there are no releases for {architecture}"))
}

/// What compilers call a platform.
pub(crate) fn triple(platform: Platform) -> &'static str {
    match platform {
        Platform::LinuxAmd64 => "x86_64-unknown-linux-gnu",
        Platform::LinuxArm64 => "aarch64-unknown-linux-gnu",
    }
}

/// How one builds for another processor than this computer's.
pub(super) struct Cross {
    /// How the compiler's programs are called, before `-gcc`, and where its libraries lie below `/usr`.
    pub(super) prefix: &'static str,
    /// The compiler's packages.
    pub(super) packages: &'static str,
    /// Runs programs for that processor, of the package `qemu-user`.
    pub(super) emulator: &'static str,
}

impl Cross {
    /// None where this computer's own compiler does.
    pub(super) fn to(platform: Platform) -> Result<Option<Self>> {
        if platform == native()? {
            return Ok(None);
        }
        Ok(Some(match platform {
            Platform::LinuxAmd64 => Self {
                prefix: "x86_64-linux-gnu",
                packages: "gcc-x86-64-linux-gnu,libc6-dev-amd64-cross",
                emulator: "qemu-x86_64",
            },
            Platform::LinuxArm64 => Self {
                prefix: "aarch64-linux-gnu",
                packages: "gcc-aarch64-linux-gnu,libc6-dev-arm64-cross",
                emulator: "qemu-aarch64",
            },
        }))
    }

    /// What makes cargo and the build scripts take the compiler.
    pub(super) fn environment(&self, platform: Platform) -> [String; 2] {
        let name = triple(platform).replace('-', "_");
        let compiler = format!("{}-gcc", self.prefix);
        [format!("CARGO_TARGET_{}_LINKER={compiler}", name.to_uppercase()), format!("CC_{name}={compiler}")]
    }
}
