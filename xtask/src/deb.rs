//! `cargo xtask deb`: the Debian packages of what `cargo xtask build` has built. What a package
//! holds stands in its crate's manifest, where cargo-deb reads it; what the programs themselves
//! write (manual, completions) and the changelog in Debian's form are made here before. The same
//! commit gives the same bytes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use aio_protocol::release::Platform;
use anyhow::{Context, Result, ensure};

use crate::{portable, step};

/// What makes the packages.
const CARGO_DEB: step::Tool = step::Tool { name: "cargo-deb", version: "3.8.0" };

/// The crates, and their packages.
const PACKAGES: [(&str, &str); 2] =
    [("aio-worker", "aio-worker"), ("controller-stub", "aio-controller-stub")];

/// As the manifests say it, too.
const MAINTAINER: &str = "AIWM maintainers <maintainers@x-or.cloud>";

/// Builds the programs and packs them.
pub(crate) fn build() -> Result<Vec<PathBuf>> {
    portable::build()?;
    pack()
}

/// Packs what `portable::build` has built.
pub(crate) fn pack() -> Result<Vec<PathBuf>> {
    let target = portable::target()?;
    let packing = Packing {
        source: &step::root(),
        target: &target,
        platform: portable::native()?,
        time: &step::commit_time()?,
    };
    packing.run()
}

/// What is packed.
pub(crate) struct Packing<'a> {
    /// The folder of the sources that the programs were built of: manifests, units and the like.
    pub(crate) source: &'a Path,
    /// The target folder that they were built into; the packages get a folder in it, `debian`.
    pub(crate) target: &'a Path,
    /// What the programs run on.
    pub(crate) platform: Platform,
    /// The one time that is in a package, in seconds since 1970.
    pub(crate) time: &'a str,
}

impl Packing<'_> {
    /// Packs, and says where the packages lie.
    pub(crate) fn run(&self) -> Result<Vec<PathBuf>> {
        let cargo_deb = CARGO_DEB.installed()?;
        let packages = self.target.join("debian");
        self.generate()?;
        empty(&packages)?;
        for (krate, _) in PACKAGES {
            let mut deb = Command::new(&cargo_deb);
            deb.args(["deb", "--no-build", "--no-strip", "--locked", "--package", krate, "--output"]);
            deb.arg(&packages).current_dir(self.source);
            if self.platform != portable::native()? {
                deb.args(["--target", portable::triple(self.platform)]);
            }
            // cargo-deb looks for programs where cargo would have put them.
            deb.env("CARGO_TARGET_DIR", self.target).env("SOURCE_DATE_EPOCH", self.time);
            step::run(&mut deb)?;
        }
        let made = fs::read_dir(&packages)?.map(|entry| Ok(entry?.path()));
        let mut made: Vec<_> = made.collect::<Result<_>>()?;
        made.sort();
        ensure!(made.len() == PACKAGES.len(), "cargo-deb made {made:?}");
        for package in &made {
            eprintln!("xtask: packed {}", package.display());
        }
        Ok(made)
    }

    /// What the manifests find in `packaging/deb/generated`.
    fn generate(&self) -> Result<()> {
        let folder = self.source.join("packaging/deb/generated");
        empty(&folder)?;
        for part in ["completions", "man", "controller-man"] {
            empty(&folder.join(part))?;
        }
        let programs = portable::folder(self.target, self.platform, "release")?;
        let program = |name: &str| portable::program(self.platform, &programs.join(name));
        step::run(program("aio-worker")?.args(["man", "--output-dir"]).arg(folder.join("man")))?;
        step::run(program("controller-stub")?.arg("man").arg(folder.join("controller-man")))?;
        for (shell, file) in [("bash", "aio-worker"), ("zsh", "_aio-worker"), ("fish", "aio-worker.fish")] {
            let script = program("aio-worker")?.args(["completions", shell]).output()?;
            ensure!(script.status.success(), "aio-worker completions {shell} ended with {}", script.status);
            fs::write(folder.join("completions").join(file), script.stdout)?;
        }
        let time = format!("--date=@{}", self.time);
        let date = step::program("date", &["--utc", "--rfc-email", &time]).output()?;
        let date = String::from_utf8(date.stdout).context("the date is no text")?;
        let changes = self.source.join("CHANGELOG.md");
        let changes = fs::read_to_string(changes).context("cannot read CHANGELOG.md")?;
        for (_, package) in PACKAGES {
            // Where a package has no version but the program's, its changelog is this one, and compressed.
            empty(&folder.join(package))?;
            let file = folder.join(package).join("changelog");
            fs::write(&file, debian_changelog(package, &changes, date.trim()))?;
            step::run(step::program("gzip", &["--best", "--no-name"]).arg(&file))?;
        }
        Ok(())
    }
}

/// Makes an empty folder of this one, whether it is there or not.
fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

/// The changelog in Debian's form (deb-changelog(5)): one entry for each version.
fn debian_changelog(package: &str, markdown: &str, date: &str) -> String {
    let mut text = String::new();
    for section in markdown.split("\n## ").skip(1) {
        let (heading, changes) = section.split_once('\n').unwrap_or((section, ""));
        let version = heading.split_whitespace().next().unwrap_or_default();
        text.push_str(&format!("{package} ({version}) stable; urgency=medium\n\n"));
        for change in changes.trim().split("\n- ") {
            let words: Vec<_> = change.trim_start_matches("- ").split_whitespace().collect();
            text.push_str(&wrapped(&words, "  * ", "    "));
        }
        text.push_str(&format!("\n -- {MAINTAINER}  {date}\n\n"));
    }
    text
}

/// Words in lines of at most 80 characters.
fn wrapped(words: &[&str], first: &str, others: &str) -> String {
    const WIDTH: usize = 80;
    let (mut text, mut line) = (String::new(), first.trim_end().to_owned());
    for word in words {
        if line.chars().count() + 1 + word.chars().count() > WIDTH && !line.trim().is_empty() {
            text.push_str(&format!("{line}\n"));
            line = format!("{}{word}", others);
        } else {
            line = format!("{line} {word}");
        }
    }
    text.push_str(&format!("{line}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_s_changes_become_an_entry_in_debian_s_form() {
        let long = "word ".repeat(20);
        let markdown = format!(
            "# Changelog\n\nHow it is made.\n\n## 1.1.0 (unreleased)\n\n- One\n  thing.\n- {long}\n\n## 1.0.0\n\n- First.\n"
        );
        let text = debian_changelog("aio-worker", &markdown, "Thu, 11 Dec 2025 12:00:00 +0000");
        let signature = format!(" -- {MAINTAINER}  Thu, 11 Dec 2025 12:00:00 +0000\n");
        assert_eq!(text.matches(&signature).count(), 2);
        assert!(
            text.starts_with("aio-worker (1.1.0) stable; urgency=medium\n\n  * One thing.\n  * word word "),
            "{text}"
        );
        assert!(text.contains("\naio-worker (1.0.0) stable; urgency=medium\n\n  * First.\n\n -- "), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
