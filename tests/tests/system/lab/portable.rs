//! What is shipped runs on the oldest system that the product promises. Stands in the lab because only the lab's runs build it so.

use std::{fs, path::Path};

use aio_tests::artifacts::Artifacts;
use anyhow::{Context, Result, ensure};

/// The C library of Debian 11; Ubuntu 22.04 has 2.35.
const OLDEST_GLIBC: (u32, u32) = (2, 31);

#[test]
fn what_is_shipped_asks_for_no_newer_c_library_than_debian_11_has() -> Result<()> {
    let built = Artifacts::release()?;
    for program in [built.worker()?, built.installer()?, built.controller()?, built.fake_nvml()?] {
        let newest = newest_glibc(&program)?;
        println!("{} asks for GLIBC_{}.{}", program.display(), newest.0, newest.1);
        ensure!(
            newest <= OLDEST_GLIBC,
            "{} asks for GLIBC_{}.{} and Debian 11 has 2.31: build it with `cargo xtask build`",
            program.display(),
            newest.0,
            newest.1
        );
    }
    Ok(())
}

/// The newest version among those that the dynamic linker will ask for. Their names stand in the file's table of strings; other text
/// of the same form would only make this stricter.
fn newest_glibc(program: &Path) -> Result<(u32, u32)> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let names = bytes.split(|byte| *byte == 0).filter_map(|name| name.strip_prefix(b"GLIBC_"));
    let versions = names.filter_map(|name| {
        let mut numbers = str::from_utf8(name).ok()?.split('.');
        Some((numbers.next()?.parse::<u32>().ok()?, numbers.next()?.parse::<u32>().ok()?))
    });
    versions.max().with_context(|| format!("{} asks for no version of a C library", program.display()))
}
