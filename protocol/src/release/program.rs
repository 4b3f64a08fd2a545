//! What kind of program a release file is, after the head of its ELF file. Says nothing of whether
//! it is the published one.

use super::Platform;

/// As many bytes at the beginning of a file say what it is.
pub const HEAD: usize = 20;

/// Why a file is not a program of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// No 64-bit Linux program at all.
    #[error("it is no 64-bit Linux program (ELF)")]
    NoProgram,
    /// One for another platform.
    #[error("it is a program for {0}")]
    OfPlatform(Platform),
    /// One for a processor that no platform has: ELF's number for it.
    #[error("it is a program for the processor that ELF calls {0}")]
    OfProcessor(u16),
}

/// Whether a file that begins with `head` is a program for `platform`. Offsets and numbers are
/// those of elf(5): magic, class 64 (2), little endian (1), type executable (2) or
/// position-independent (3), and the processor.
pub fn check(head: &[u8], platform: Platform) -> Result<(), NotOurs> {
    let number = |at: usize| Some(u16::from_le_bytes([*head.get(at)?, *head.get(at + 1)?]));
    let is_elf = head.starts_with(b"\x7fELF\x02\x01") && matches!(number(16), Some(2 | 3));
    let processor = number(18).filter(|_| is_elf).ok_or(NotOurs::NoProgram)?;
    match Platform::ALL.into_iter().find(|platform| elf_processor(*platform) == processor) {
        Some(found) if found == platform => Ok(()),
        Some(found) => Err(NotOurs::OfPlatform(found)),
        None => Err(NotOurs::OfProcessor(processor)),
    }
}

/// `EM_X86_64` and `EM_AARCH64`.
fn elf_processor(platform: Platform) -> u16 {
    match platform {
        Platform::LinuxAmd64 => 62,
        Platform::LinuxArm64 => 183,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(processor: u16) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0".to_vec();
        head.extend(processor.to_le_bytes());
        head
    }

    #[test]
    fn a_program_is_of_the_platform_that_its_head_says() {
        use Platform::{LinuxAmd64, LinuxArm64};
        assert_eq!(head(62).len(), HEAD);
        assert_eq!(check(&head(62), LinuxAmd64), Ok(()));
        assert_eq!(check(&head(183), LinuxArm64), Ok(()));
        assert_eq!(check(&head(62), LinuxArm64), Err(NotOurs::OfPlatform(LinuxAmd64)));
        assert_eq!(check(&head(243), LinuxAmd64), Err(NotOurs::OfProcessor(243)));
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_no_program() {
        for cut in 0..HEAD {
            assert_eq!(check(&head(62)[..cut], Platform::LinuxAmd64), Err(NotOurs::NoProgram), "{cut}");
        }
        let library_of_32_bits = [b"\x7fELF\x01\x01".as_slice(), &[0; 14]].concat();
        for other in [
            b"#!/bin/sh\necho the release\n".as_slice(),
            b"<html>a page of a login</html>",
            &library_of_32_bits,
        ] {
            assert_eq!(check(other, Platform::LinuxAmd64), Err(NotOurs::NoProgram));
        }
    }

    #[test]
    fn this_very_program_is_of_this_platform() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let platform = Platform::of_architecture(std::env::consts::ARCH).unwrap();
        assert_eq!(check(&bytes[..HEAD], platform), Ok(()));
    }
}
