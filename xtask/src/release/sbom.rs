//! The list of what a program was built of, as CycloneDX has it, by the `cargo-cyclonedx` program.

use std::{fs, path::Path, process::Command};

use aio_protocol::release::Platform;
use anyhow::{Context, Result};

use crate::{portable, step};

const CARGO_CYCLONEDX: step::Tool = step::Tool { name: "cargo-cyclonedx", version: "0.5.9" };

/// Where the tool writes, beside the package's own manifest.
const WRITTEN: &str = "release-sbom";

/// What the sources' folder is called in the list, as in the programs.
const FOLDER: &str = "/build/source";

/// The list for the package in the folder `package` of `sources`, as of `epoch`.
pub(super) fn of(package: &str, sources: &Path, platform: Platform, epoch: i64) -> Result<String> {
    let folder = sources.join(package);
    let mut describe = Command::new(CARGO_CYCLONEDX.installed()?);
    describe.args(["cyclonedx", "--quiet", "--format", "json", "--override-filename", WRITTEN, "--target"]);
    describe.arg(portable::triple(platform)).arg("--manifest-path").arg(folder.join("Cargo.toml"));
    describe
        .current_dir(sources)
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .env("CARGO_NET_OFFLINE", "true");
    step::run(&mut describe)?;
    let file = folder.join(format!("{WRITTEN}.json"));
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let here = sources.to_str().context("the sources lie at no text")?;
    Ok(text.replace(here, FOLDER))
}
