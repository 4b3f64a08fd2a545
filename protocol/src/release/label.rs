//! What a release's signature says of the file beside its bytes: the trusted comment of a
//! `.minisig`, which is signed too. A server that hands out another version or platform than it was
//! asked for, with that one's own good signature, is found out by it.

use super::{Platform, ReleaseVersion};

/// What the installer's file is called, before the platform.
pub const INSTALLER_PREFIX: &str = "aio-installer-";

/// Why a signature is of another file than was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the signature says that it is of {said}, and not of {expected}")]
pub struct OtherFile {
    said: String,
    expected: String,
}

/// Whether `comment` allows the file to be the worker of `version` for `platform`. It is words of
/// the form `key:value`, between spaces or tabs: `version:v1.0.0` and `file:linux-amd64`, the
/// latter as `minisign` itself writes it. What it does not say is not checked, nor is a file's name
/// that is of no platform (`file:aio-worker`).
pub fn check(comment: &str, version: &ReleaseVersion, platform: Platform) -> Result<(), OtherFile> {
    let of_platform =
        |name: &str| name.strip_prefix(INSTALLER_PREFIX).unwrap_or(name).parse::<Platform>().is_ok();
    check_words(comment, version, platform.as_str(), of_platform)
}

/// Whether `comment` says that it is of the file `name` of `version`, as it is written for each
/// signature of a releases folder.
pub fn check_file(comment: &str, version: &ReleaseVersion, name: &str) -> Result<(), OtherFile> {
    check_words(comment, version, name, |_| true)
}

/// The trusted comment of the file `name` of `version`.
pub fn comment(version: &ReleaseVersion, name: &str) -> String {
    format!("file:{name} version:{version}")
}

fn check_words(
    comment: &str,
    version: &ReleaseVersion,
    name: &str,
    counts: impl Fn(&str) -> bool,
) -> Result<(), OtherFile> {
    let value =
        |key: &str| comment.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix(':'));
    let other =
        |said: &str, expected: &str| Err(OtherFile { said: said.to_owned(), expected: expected.to_owned() });
    if let Some(said) = value("version").filter(|said| said.parse() != Ok(version.clone())) {
        return other(said, &version.to_string());
    }
    match value("file").filter(|said| counts(said)) {
        Some(said) if said != name => other(said, name),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_of_another_version_or_platform_is_found_out() {
        let allowed =
            |comment: &str| check(comment, &"v1.2.0".parse().unwrap(), Platform::LinuxAmd64).is_ok();
        for comment in [
            "",
            "timestamp:1765454400\tfile:linux-amd64\thashed",
            "timestamp:1765454400 file:linux-amd64 version:v1.2.0",
            "file:aio-worker",
            "signature from minisign secret key",
        ] {
            assert!(allowed(comment), "{comment}");
        }
        for comment in [
            "file:linux-arm64",
            "file:aio-installer-linux-amd64",
            "version:v1.1.0 file:linux-amd64",
            "version:1.2.0",
            "version:",
        ] {
            assert!(!allowed(comment), "{comment}");
        }
    }

    #[test]
    fn a_signature_of_another_file_of_the_folder_is_found_out() {
        let version = "v1.2.0".parse().unwrap();
        let allowed = |comment: &str| check_file(comment, &version, "SHA256SUMS").is_ok();
        assert!(allowed(&comment(&version, "SHA256SUMS")));
        assert!(check(&comment(&version, "linux-amd64"), &version, Platform::LinuxAmd64).is_ok());
        for comment in ["file:linux-amd64 version:v1.2.0", "file:SHA256SUMS version:v1.1.0"] {
            assert!(!allowed(comment), "{comment}");
        }
    }
}
