//! The sources of a release: a commit, and not what happens to lie in the folder. Says which
//! commit, and writes its files elsewhere.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use aio_protocol::time::Timestamp;
use anyhow::{Context, Result, bail, ensure};

/// So many digits of a commit's name are one in every repository that people work with.
const SHORT: usize = 12;

const DIRTY: &str = "-dirty";

#[derive(Debug)]
pub(super) struct Source {
    repository: PathBuf,
    commit: String,
    /// What is exported: the commit, or one that git made of what is not committed.
    tree: String,
    /// Seconds since 1970.
    epoch: i64,
}

impl Source {
    /// The commit that is checked out in `repository`. What is changed and not committed is
    /// refused, or taken with `allow_dirty`, as far as git follows it.
    pub(super) fn of(repository: &Path, allow_dirty: bool) -> Result<Self> {
        let ask = |words: &[&str]| git(repository, words);
        let head = ask(&["rev-parse", "HEAD"])?;
        let epoch = ask(&["show", "--no-patch", "--format=%ct", "HEAD"])?;
        let epoch = epoch.parse().with_context(|| format!("git says that {head} was made at `{epoch}`"))?;
        let changed = ask(&["status", "--porcelain"])?;
        if changed.is_empty() {
            return Ok(Self { repository: repository.to_owned(), commit: head.clone(), tree: head, epoch });
        }
        if !allow_dirty {
            bail!(
                "a release is made of a commit, and this is not committed (commit it, take it away, or say --allow-dirty):\n{changed}"
            );
        }
        // Nobody's name, because it is nobody's commit, and git makes none without.
        let stash = ask(&["-c", "user.name=xtask", "-c", "user.email=xtask@localhost", "stash", "create"])?;
        let tree = if stash.is_empty() { head.clone() } else { stash };
        Ok(Self { repository: repository.to_owned(), commit: format!("{head}{DIRTY}"), tree, epoch })
    }

    /// Its full name, and whether that is all.
    pub(super) fn commit(&self) -> &str {
        &self.commit
    }

    /// As programs say it.
    pub(super) fn short_commit(&self) -> String {
        let short = self.commit.get(..SHORT).unwrap_or(&self.commit);
        let dirty = if self.commit.ends_with(DIRTY) { DIRTY } else { "" };
        format!("{short}{dirty}")
    }

    /// When the commit was made, in seconds since 1970: the release's one time.
    pub(super) fn epoch(&self) -> i64 {
        self.epoch
    }

    pub(super) fn committed_at(&self) -> Timestamp {
        Timestamp::from_millis(self.epoch.saturating_mul(1000))
    }

    /// Writes its files into the empty or absent `folder`.
    pub(super) fn export(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut archive = Command::new("git")
            .args(["archive", "--format=tar", &self.tree])
            .current_dir(&self.repository)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run git")?;
        let packed = archive.stdout.take().context("git archive has no output")?;
        let unpacked = Command::new("tar")
            .args(["--extract", "--directory"])
            .arg(folder)
            .stdin(packed)
            .status()
            .context("cannot run tar")?;
        let archived = archive.wait().context("cannot wait for git archive")?;
        ensure!(
            archived.success() && unpacked.success(),
            "the files of {} could not be written into {}",
            self.tree,
            folder.display()
        );
        Ok(())
    }
}

fn git(repository: &Path, words: &[&str]) -> Result<String> {
    let output = Command::new("git").args(words).current_dir(repository).output();
    let output = output.context("cannot run git, which knows of which commit a release is made")?;
    ensure!(
        output.status.success(),
        "`git {}` in {} failed: {}",
        words.join(" "),
        repository.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout).context("git answered no text")?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        git(folder.path(), &["init", "--quiet"]).unwrap();
        fs::write(folder.path().join("file"), "committed\n").unwrap();
        commit(folder.path());
        folder
    }

    fn commit(folder: &Path) {
        git(folder, &["add", "."]).unwrap();
        git(folder, &["-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "--message=x"])
            .unwrap();
    }

    fn exported(source: &Source) -> String {
        let folder = tempfile::tempdir().unwrap();
        source.export(folder.path()).unwrap();
        fs::read_to_string(folder.path().join("file")).unwrap()
    }

    #[test]
    fn a_release_is_made_of_a_commit_and_of_nothing_else() {
        let folder = repository();
        let clean = Source::of(folder.path(), false).unwrap();
        assert_eq!((clean.commit().len(), clean.short_commit().len()), (40, SHORT));
        assert_eq!(exported(&clean), "committed\n");

        fs::write(folder.path().join("stray"), "").unwrap();
        let refused = Source::of(folder.path(), false).unwrap_err().to_string();
        assert!(refused.contains("?? stray") && refused.contains("--allow-dirty"), "{refused}");
    }

    #[test]
    fn what_is_not_committed_is_taken_when_that_is_said_and_the_commit_says_so() {
        let folder = repository();
        fs::write(folder.path().join("file"), "changed\n").unwrap();
        let dirty = Source::of(folder.path(), true).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(dirty.short_commit().ends_with("-dirty") && dirty.commit().ends_with("-dirty"));
        assert_eq!(exported(&dirty), "changed\n");
        assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "changed\n", "is left as it is");
    }
}
