//! `self-update`: another version of this very program in its place, for a copy that no package owns. The
//! program is verified before anything is changed, put beside the old one, run once, and renamed over it; the
//! old one is kept. Restarts no service.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use aio_protocol::{
    error_code::ErrorCode,
    release::{Platform, ReleaseVersion, build, program},
    time::Timestamp,
};

use crate::{
    clock,
    releases::{FetchError, Keys, ReleaseSource, fetch::Source},
};

/// What stands in a release before the platform.
const PREFIX: &str = "controller-stub-";

/// The key that the release's builder built in.
const BUILT_IN_KEY: Option<&str> = option_env!("AIO_BUILT_IN_RELEASE_KEY");

/// Where the Debian package has it. What lies there is the package manager's, whoever put it there.
const PACKAGED: &str = "/usr/bin/controller-stub";

/// What to put in place.
#[derive(Debug, Clone)]
pub struct SelfUpdate {
    /// Where it is published.
    pub from: ReleaseSource,
    /// The keys that it may be signed with, as base64; the one that is built in where none is named.
    pub keys: Vec<String>,
    /// This version, and not the newest.
    pub version: Option<ReleaseVersion>,
    /// Also an older version than this one.
    pub allow_downgrade: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Updated {
    /// This is the version.
    AlreadyThere(ReleaseVersion),
    /// The program is this version from its next start on.
    Replaced {
        /// The version.
        version: ReleaseVersion,
        /// Where the program before lies.
        previous: PathBuf,
    },
}

/// Why this program stays what it is.
#[derive(Debug, thiserror::Error)]
pub enum SelfUpdateError {
    /// A package owns it.
    #[error(
        "{0} belongs to a Debian package: sudo apt-get install ./aio-controller-stub_VERSION_ARCHITECTURE.deb"
    )]
    Packaged(PathBuf),
    /// No key is known.
    #[error("no release key is known: name one with --release-key, or RELEASE_PUBLIC_KEY")]
    NoKey,
    /// A key is none.
    #[error("a release key that was named is no minisign public key")]
    Key,
    /// There are no releases for this processor.
    #[error("there are no releases for {0}")]
    Platform(&'static str),
    /// It is older.
    #[error("{0} is older than this program, and would be put in place of it")]
    Downgrade(ReleaseVersion),
    /// It was not fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It is no program for this processor.
    #[error("the published program is none for this machine")]
    Program(#[from] program::NotOurs),
    /// It does not run here, or is another version.
    #[error("the published program does not say that it is {version}: {said}")]
    Unfit {
        /// The version.
        version: ReleaseVersion,
        /// What it says.
        said: String,
    },
    /// The disk is the reason.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl SelfUpdateError {
    /// The catalogue's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Packaged(_) => ErrorCode::UpdatePackaged,
            Self::NoKey | Self::Key => ErrorCode::ReleaseKeyInvalid,
            Self::Platform(_) => ErrorCode::PlatformUnsupported,
            Self::Downgrade(_) => ErrorCode::DowngradeRefused,
            Self::Fetch(error) => error.code(),
            Self::Program(program::NotOurs::NoProgram) => ErrorCode::ElfInvalid,
            Self::Program(_) => ErrorCode::ArchitectureMismatch,
            Self::Unfit { .. } => ErrorCode::ReleaseInvalid,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => ErrorCode::DiskFull,
            Self::Io { .. } => ErrorCode::FileFailed,
        }
    }
}

/// Puts the newest version of this program, or the one that was asked for, in place of it.
pub async fn self_update(update: &SelfUpdate) -> Result<Updated, SelfUpdateError> {
    let own = std::env::current_exe().map_err(io("find", Path::new("the running program")))?;
    let present =
        Present { own: &own, packaged: Path::new(PACKAGED), version: build::number(), now: clock::now() };
    replace(update, &present).await
}

/// The program that is there.
struct Present<'a> {
    own: &'a Path,
    /// Where a package has it.
    packaged: &'a Path,
    version: &'static str,
    now: Timestamp,
}

async fn replace(update: &SelfUpdate, present: &Present<'_>) -> Result<Updated, SelfUpdateError> {
    let Present { own, packaged, version, now } = *present;
    if own == packaged {
        return Err(SelfUpdateError::Packaged(own.to_owned()));
    }
    let built_in = || BUILT_IN_KEY.filter(|key| !key.is_empty()).map(str::to_owned).into_iter().collect();
    let keys = if update.keys.is_empty() { built_in() } else { update.keys.clone() };
    if keys.is_empty() {
        return Err(SelfUpdateError::NoKey);
    }
    let keys = Keys::of(&keys).ok_or(SelfUpdateError::Key)?;
    let processor = std::env::consts::ARCH;
    let platform = Platform::of_architecture(processor).ok_or(SelfUpdateError::Platform(processor))?;
    let folder = own.parent().unwrap_or(own);
    let unfinished = tempfile::Builder::new().prefix(".controller-stub-").tempdir_in(folder);
    let unfinished = unfinished.map_err(io("create a folder in", folder))?;

    let source = Source::new(&update.from)?;
    let present: Option<ReleaseVersion> = format!("v{version}").parse().ok();
    let accepted = |version: &ReleaseVersion| {
        let older = present.as_ref().is_some_and(|present| version < present);
        present.as_ref() != Some(version) && (!older || update.allow_downgrade)
    };
    let (asked, name) = (update.version.as_ref(), format!("{PREFIX}{platform}"));
    let found = source.program(unfinished.path(), &keys, asked, now, &name, accepted).await?;
    let (version, new) = match found {
        (version, Some(new)) => (version, new),
        (version, None) if present.as_ref() == Some(&version) => return Ok(Updated::AlreadyThere(version)),
        (version, None) => return Err(SelfUpdateError::Downgrade(version)),
    };
    let bytes = fs::read(&new).map_err(io("read", &new))?;
    program::check(bytes.get(..program::HEAD).unwrap_or(&bytes), platform)?;
    let mode = fs::metadata(own).map_or(0o755, |metadata| metadata.mode() & 0o7777);
    fs::set_permissions(&new, fs::Permissions::from_mode(mode | 0o111))
        .map_err(io("set the rights of", &new))?;
    fs::File::open(&new).and_then(|file| file.sync_all()).map_err(io("write to disk", &new))?;
    runs(&new, &version)?;
    let previous = own.with_file_name(format!("{}.previous", own.file_name().unwrap_or_default().display()));
    put_in_place(&new, own, &previous)?;
    Ok(Updated::Replaced { version, previous })
}

/// Fails unless the program starts here and says its version.
fn runs(new: &Path, version: &ReleaseVersion) -> Result<(), SelfUpdateError> {
    let unfit = |said: String| SelfUpdateError::Unfit { version: version.clone(), said };
    let output = Command::new(new).arg("--version").output().map_err(|error| unfit(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let number = version.to_string();
    if said.contains(&format!(" {} (", number.trim_start_matches('v'))) {
        return Ok(());
    }
    Err(unfit(if said.is_empty() { output.status.to_string() } else { said }))
}

/// At every moment there is a program at `own`.
fn put_in_place(new: &Path, own: &Path, previous: &Path) -> Result<(), SelfUpdateError> {
    let folder = own.parent().unwrap_or(own);
    let copy = new.with_file_name("previous");
    fs::copy(own, &copy).map_err(io("copy", own))?;
    fs::File::open(&copy).and_then(|file| file.sync_all()).map_err(io("write to disk", &copy))?;
    fs::rename(&copy, previous).map_err(io("put in place", previous))?;
    fs::rename(new, own).map_err(io("put in place", own))?;
    fs::File::open(folder).and_then(|it| it.sync_all()).map_err(io("write to disk", folder))
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SelfUpdateError {
    let path = path.to_owned();
    move |source| SelfUpdateError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::releases::fetch::tests::Server;

    /// A program that says what is given, built here.
    fn says(folder: &Path, text: &str) -> Vec<u8> {
        let (source, program) = (folder.join("program.c"), folder.join("built"));
        fs::write(&source, format!("#include <stdio.h>\nint main(void) {{ puts(\"{text}\"); }}\n")).unwrap();
        assert!(Command::new("cc").arg(&source).arg("-o").arg(&program).status().unwrap().success());
        fs::read(program).unwrap()
    }

    struct World {
        folder: tempfile::TempDir,
        server: Server,
        packaged: bool,
    }

    impl World {
        async fn new() -> Self {
            let (folder, server) = (tempfile::tempdir().unwrap(), Server::start().await);
            let world = Self { folder, server, packaged: false };
            fs::create_dir(world.folder.path().join("bin")).unwrap();
            fs::write(world.own(), "the old program").unwrap();
            world
        }

        fn own(&self) -> PathBuf {
            self.folder.path().join("bin/controller-stub")
        }

        fn publish(&mut self, program: Vec<u8>) {
            let platform = Platform::of_architecture(std::env::consts::ARCH).unwrap();
            self.server.publish_with(&format!("{PREFIX}{platform}"), program);
        }

        async fn update(&self, change: impl FnOnce(&mut SelfUpdate)) -> Result<Updated, SelfUpdateError> {
            let (from, key) = self.server.tree();
            let mut update = SelfUpdate { from, keys: vec![key], version: None, allow_downgrade: false };
            change(&mut update);
            self.update_of(&update, "1.0.0").await
        }

        async fn update_of(
            &self,
            update: &SelfUpdate,
            version: &'static str,
        ) -> Result<Updated, SelfUpdateError> {
            self.update_at(update, version, "2025-12-12T12:00:00Z").await
        }

        async fn update_at(
            &self,
            update: &SelfUpdate,
            version: &'static str,
            now: &str,
        ) -> Result<Updated, SelfUpdateError> {
            let own = self.own();
            let packaged = if self.packaged { own.clone() } else { PathBuf::from(PACKAGED) };
            let present = Present { own: &own, packaged: &packaged, version, now: now.parse().unwrap() };
            replace(update, &present).await
        }

        /// The code of the refusal; the program is what it was, and nothing lies beside it.
        async fn refused(&self, change: impl FnOnce(&mut SelfUpdate)) -> ErrorCode {
            let code = self.update(change).await.unwrap_err().code();
            assert_eq!(fs::read(self.own()).unwrap(), b"the old program");
            assert_eq!(fs::read_dir(self.own().parent().unwrap()).unwrap().count(), 1);
            code
        }
    }

    #[tokio::test]
    async fn the_program_is_replaced_by_one_that_was_signed_and_runs_and_the_old_one_stays() {
        let mut world = World::new().await;
        let program = says(world.folder.path(), "controller-stub 1.1.0 (linux)");
        world.publish(program.clone());
        let previous = world.own().with_file_name("controller-stub.previous");
        let version = "v1.1.0".parse().unwrap();
        let updated = world.update(|_| {}).await.unwrap();
        assert_eq!(updated, Updated::Replaced { version, previous: previous.clone() });
        assert_eq!(fs::read(world.own()).unwrap(), program);
        assert_eq!(fs::read(previous).unwrap(), b"the old program");
        assert_eq!(fs::metadata(world.own()).unwrap().mode() & 0o111, 0o111);
        assert_eq!(
            fs::read_dir(world.own().parent().unwrap()).unwrap().count(),
            2,
            "something was left behind"
        );
    }

    #[tokio::test]
    async fn a_program_that_is_not_what_it_should_be_is_not_put_in_place() {
        let mut world = World::new().await;
        assert_eq!(world.refused(|_| {}).await, ErrorCode::ReleaseInvalid, "the release has none");
        world.publish(says(world.folder.path(), "controller-stub 1.2.0 (linux)"));
        assert_eq!(world.refused(|_| {}).await, ErrorCode::ReleaseInvalid, "it is another version");
        world.publish(b"#!/bin/sh\n".to_vec());
        assert_eq!(world.refused(|_| {}).await, ErrorCode::ElfInvalid);
        let stranger = minisign::KeyPair::generate_unencrypted_keypair().unwrap().pk.to_base64();
        assert_eq!(world.refused(|it| it.keys = vec![stranger]).await, ErrorCode::SignatureForeign);
        assert_eq!(world.refused(|it| it.keys = vec!["RWQ".to_owned()]).await, ErrorCode::ReleaseKeyInvalid);
        assert_eq!(world.refused(|it| it.keys.clear()).await, ErrorCode::ReleaseKeyInvalid);
    }

    #[tokio::test]
    async fn an_older_version_is_put_in_place_where_that_is_said_and_the_same_one_never() {
        let mut world = World::new().await;
        world.publish(says(world.folder.path(), "controller-stub 1.1.0 (linux)"));
        let (from, key) = world.server.tree();
        let mut update = SelfUpdate { from, keys: vec![key], version: None, allow_downgrade: false };
        let version: ReleaseVersion = "v1.1.0".parse().unwrap();
        let same = world.update_of(&update, "1.1.0").await.unwrap();
        assert_eq!(same, Updated::AlreadyThere(version.clone()));
        let refused = world.update_of(&update, "1.2.0").await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::DowngradeRefused);
        let expired = world.update_at(&update, "1.0.0", "2026-02-12T12:00:00Z").await.unwrap_err();
        assert_eq!(expired.code(), ErrorCode::IndexExpired, "the news may be withheld");
        update.allow_downgrade = true;
        let previous = world.own().with_file_name("controller-stub.previous");
        assert_eq!(world.update_of(&update, "1.2.0").await.unwrap(), Updated::Replaced { version, previous });
    }

    #[tokio::test]
    async fn a_program_of_a_package_is_the_package_manager_s() {
        let world = World { packaged: true, ..World::new().await };
        assert_eq!(world.refused(|_| {}).await, ErrorCode::UpdatePackaged);
        let said = world.update(|_| {}).await.unwrap_err().to_string();
        assert!(said.contains("sudo apt-get install"), "{said}");
    }
}
