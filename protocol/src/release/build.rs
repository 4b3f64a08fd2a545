//! What a program of this workspace says of its own build: version, platform, and the commit, where
//! a release was built from one. Decides nothing by it, and neither does whoever reads it: what a
//! release is, its checksum says.

use std::sync::LazyLock;

use super::Platform;

/// The version, without `v`, e.g. `1.0.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, which the release's builder names in the build's environment.
const COMMIT: Option<&str> = option_env!("AIO_BUILD_COMMIT");

/// The first digits of the commit that this program was built from; none in a build that is no release.
pub fn commit() -> Option<&'static str> {
    COMMIT.filter(|commit| !commit.is_empty())
}

/// As releases are named, or the processor where there is no release for it.
pub fn platform() -> &'static str {
    let architecture = std::env::consts::ARCH;
    Platform::of_architecture(architecture).map_or(architecture, Platform::as_str)
}

/// What `--version` prints behind the program's name: `1.0.0 (linux-amd64, commit 35edb46a1b2c)`.
pub fn version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| text(commit()));
    &TEXT
}

fn text(commit: Option<&str>) -> String {
    let commit = commit.map(|commit| format!(", commit {commit}")).unwrap_or_default();
    format!("{VERSION} ({}{commit})", platform())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_names_its_commit_and_another_build_names_none() {
        let platform = platform();
        assert_eq!(text(None), format!("{VERSION} ({platform})"));
        assert_eq!(text(Some("35edb46a1b2c")), format!("{VERSION} ({platform}, commit 35edb46a1b2c)"));
    }
}
