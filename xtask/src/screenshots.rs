//! `cargo xtask screenshots`: pictures of the pages, taken by the test that makes their fleet.

use anyhow::Result;

use crate::{packages, step};

/// Writes the pictures anew.
pub(crate) fn run() -> Result<()> {
    packages::install(&[packages::BROWSER])?;
    let folder = step::root().join("docs/images");
    let test =
        ["nextest", "run", "--package", "controller-stub", "--test", "controller", "--run-ignored", "only"];
    let mut command = step::cargo(&test);
    step::run(command.arg("pages::screenshots::").env("AIO_IMAGES", folder))
}
