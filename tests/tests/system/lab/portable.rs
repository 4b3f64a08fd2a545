//! What is shipped runs on the oldest system that the product promises, and is what a debugger can
//! be given symbols for later. Stands in the lab because only the lab's runs build it so. Reads the
//! files as the dynamic linker does, apart from the release's builder, which refuses others.

use std::{fs, path::Path};

use aio_tests::artifacts::Artifacts;
use anyhow::{Context, Result, ensure};
use object::{
    LittleEndian, Object,
    elf::{FileHeader64, SHT_SYMTAB},
    read::elf::{ElfFile, FileHeader, SectionHeader},
};

/// The C library of Debian 11; Ubuntu 22.04 has 2.35.
const OLDEST_GLIBC: (u32, u32) = (2, 31);

#[test]
fn what_is_shipped_asks_for_no_newer_c_library_than_debian_11_has() -> Result<()> {
    let built = Artifacts::release()?;
    for program in [built.worker()?, built.installer()?, built.controller()?, built.fake_nvml()?] {
        let bytes = read(&program)?;
        let newest = newest_glibc(&bytes).with_context(|| format!("cannot read {}", program.display()))?;
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

#[test]
fn what_is_shipped_has_a_build_id_and_no_symbols() -> Result<()> {
    let built = Artifacts::release()?;
    for program in [built.worker()?, built.installer()?, built.controller()?] {
        let bytes = read(&program)?;
        let file = ElfFile::<FileHeader64<LittleEndian>>::parse(&*bytes)?;
        let id = file.build_id()?.unwrap_or_default();
        ensure!(id.len() >= 8, "{} has the build id {id:02x?}", program.display());
        let sections = file.elf_section_table();
        let symbols = sections.iter().any(|section| section.sh_type(file.endian()) == SHT_SYMTAB);
        ensure!(
            !symbols && file.section_by_name(".debug_info").is_none(),
            "{} has symbols",
            program.display()
        );
    }
    Ok(())
}

fn read(program: &Path) -> Result<Vec<u8>> {
    fs::read(program).with_context(|| format!("cannot read {}", program.display()))
}

/// The newest version among those that the dynamic linker will ask for.
fn newest_glibc(bytes: &[u8]) -> Result<(u32, u32)> {
    let header = FileHeader64::<LittleEndian>::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let (mut libraries, strings) = sections.gnu_verneed(endian, bytes)?.context("it asks for no library")?;
    let strings = sections.strings(endian, bytes, strings)?;
    let mut newest = None;
    while let Some((_, mut versions)) = libraries.next()? {
        while let Some(version) = versions.next()? {
            let name = str::from_utf8(version.name(endian, strings)?)?;
            let Some(numbers) = name.strip_prefix("GLIBC_") else { continue };
            let (major, rest) = numbers.split_once('.').with_context(|| format!("{name} is no version"))?;
            let minor = rest.split('.').next().unwrap_or(rest);
            newest = newest.max(Some((major.parse()?, minor.parse()?)));
        }
    }
    newest.context("it asks for no version of a C library")
}
