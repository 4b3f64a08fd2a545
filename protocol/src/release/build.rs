//! What a program of this workspace says of its own build: version, platform, and the commit, where
//! a release was built from one. Decides nothing by it, and neither does whoever reads it: what a
//! release is, its checksum says.

use std::sync::LazyLock;

use super::Platform;

/// What stands before the version in a program's file.
const MARK: &[u8] = b"AIO-BUILD-VERSION:";

/// The version, at a place of its own in the program's file. Whoever tests updates gives a copy of a
/// program another version there, and signs it.
#[used]
static STAMP: [u8; 64] = stamp();

const fn stamp() -> [u8; 64] {
    let (mut stamp, version) = ([0; 64], env!("CARGO_PKG_VERSION").as_bytes());
    let (head, tail) = stamp.split_at_mut(MARK.len());
    head.copy_from_slice(MARK);
    tail.split_at_mut(version.len()).0.copy_from_slice(version);
    stamp
}

/// The version, without `v`, e.g. `1.0.0`.
pub fn number() -> &'static str {
    static NUMBER: LazyLock<&'static str> = LazyLock::new(|| {
        // What the compiler knows of it does not count.
        let (_, version) = std::hint::black_box(&STAMP).split_at(MARK.len());
        let end = version.iter().position(|byte| *byte == 0).unwrap_or(version.len());
        version.get(..end).and_then(|version| std::str::from_utf8(version).ok()).unwrap_or_default()
    });
    &NUMBER
}

/// `program` with this version, without `v`, in place of its own; none if it has no place for it.
pub fn stamped(mut program: Vec<u8>, version: &str) -> Option<Vec<u8>> {
    let at = program.windows(STAMP.len()).position(is_stamp)? + MARK.len();
    let place = program.get_mut(at..at + STAMP.len() - MARK.len())?;
    place.fill(0);
    place.get_mut(..version.len())?.copy_from_slice(version.as_bytes());
    Some(program)
}

/// Whether this is such a place. The mark alone stands elsewhere in a program, too.
fn is_stamp(place: &[u8]) -> bool {
    let Some(version) = place.strip_prefix(MARK) else { return false };
    let end = version.iter().position(|byte| *byte == 0).unwrap_or(version.len());
    let (number, rest) = version.split_at(end);
    !number.is_empty() && number.iter().all(u8::is_ascii_graphic) && rest.iter().all(|byte| *byte == 0)
}

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
    format!("{} ({}{commit})", number(), platform())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_names_its_commit_and_another_build_names_none() {
        let (platform, number) = (platform(), env!("CARGO_PKG_VERSION"));
        assert_eq!(text(None), format!("{number} ({platform})"));
        assert_eq!(text(Some("35edb46a1b2c")), format!("{number} ({platform}, commit 35edb46a1b2c)"));
    }

    #[test]
    fn a_program_s_version_stands_at_one_place_of_its_file() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let changed = stamped(program.clone(), "1.1.0-rc.1").unwrap();
        assert_eq!(changed.len(), program.len());
        let differs = program.iter().zip(&changed).filter(|(before, after)| before != after).count();
        assert!((1..=10).contains(&differs), "{differs} bytes");
        assert_eq!(stamped(b"no program of ours".to_vec(), "1.1.0"), None);
        assert_eq!(stamped(program, &"9".repeat(50)), None);
    }
}
