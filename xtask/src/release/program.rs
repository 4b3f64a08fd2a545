//! What the ELF file of a program says of it: its platform, the C library that it asks for, and
//! whether it is fit to be shipped.

use std::{fs, path::Path};

use aio_protocol::release::{Platform, program};
use anyhow::{Context, Result, ensure};
use object::{
    LittleEndian, Object,
    elf::FileHeader64,
    read::elf::{ElfFile, FileHeader, SectionHeader},
};

/// Debian 11's, which is the oldest that the product promises.
const OLDEST_GLIBC: (u32, u32) = (2, 31);

/// What `path` runs on.
pub(super) fn platform(path: &Path) -> Result<Platform> {
    let bytes = read(path)?;
    let head = bytes.get(..program::HEAD).unwrap_or_default();
    let found = Platform::ALL.into_iter().find(|platform| program::check(head, *platform).is_ok());
    found.with_context(|| format!("{} is no program for any platform that has releases", path.display()))
}

/// The oldest C library that the program at `path` runs with. Refuses one that is not fit to be shipped.
pub(super) fn glibc(path: &Path, expected: Platform) -> Result<(u32, u32)> {
    let bytes = read(path)?;
    let head = bytes.get(..program::HEAD).unwrap_or_default();
    program::check(head, expected).with_context(|| format!("{} is not for {expected}", path.display()))?;
    let needs = needs(&bytes).with_context(|| format!("{} cannot be read as ELF", path.display()))?;
    ensure!(needs.build_id, "{} has no build id: link it with --build-id", path.display());
    ensure!(needs.stripped, "{} has symbols: strip it", path.display());
    let (major, minor) = needs.glibc;
    ensure!(
        needs.glibc <= OLDEST_GLIBC,
        "{} asks for glibc {major}.{minor}, and Debian 11 has {}.{}: build it with `cargo xtask build`",
        path.display(),
        OLDEST_GLIBC.0,
        OLDEST_GLIBC.1
    );
    Ok(needs.glibc)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read the program {}", path.display()))
}

struct Needs {
    glibc: (u32, u32),
    build_id: bool,
    stripped: bool,
}

fn needs(bytes: &[u8]) -> Result<Needs> {
    let file = ElfFile::<FileHeader64<LittleEndian>>::parse(bytes)?;
    let (endian, header) = (file.endian(), file.elf_header());
    let sections = header.sections(endian, bytes)?;
    let mut newest = None;
    if let Some((mut needed, strings)) = sections.gnu_verneed(endian, bytes)? {
        let strings = sections.strings(endian, bytes, strings)?;
        while let Some((_, mut versions)) = needed.next()? {
            while let Some(version) = versions.next()? {
                newest = newest.max(glibc_version(version.name(endian, strings)?));
            }
        }
    }
    let symbols = sections.iter().any(|section| section.sh_type(endian) == object::elf::SHT_SYMTAB);
    Ok(Needs {
        glibc: newest.context("it asks for no version of a C library")?,
        build_id: file.build_id()?.is_some_and(|id| !id.is_empty()),
        stripped: !symbols,
    })
}

/// `GLIBC_2.31`; other libraries' versions have other names.
fn glibc_version(name: &[u8]) -> Option<(u32, u32)> {
    let mut numbers = str::from_utf8(name).ok()?.strip_prefix("GLIBC_")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
