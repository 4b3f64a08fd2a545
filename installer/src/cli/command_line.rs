//! Takes a secret out of this process's command line, which every user of the machine can read in
//! `/proc`. Until the process has come so far it stands there, and in that of a `sudo` before it: a
//! file, standard input or the environment are better places for a token.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt,
};

/// Where proc(5) has the first and the last address of the arguments in `/proc/self/stat`, counted
/// behind the name in parentheses.
const ARG_START: usize = 45;

/// Overwrites `secret` wherever it stands in the arguments as others see them. Nobody in this
/// program reads them there again: they were copied when the program began.
pub fn hide(secret: &str) {
    if secret.is_empty() {
        return;
    }
    if let Err(error) = overwrite(secret.as_bytes()) {
        tracing::debug!(%error, "the token could not be taken out of the command line");
    }
}

fn overwrite(secret: &[u8]) -> io::Result<()> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let mut addresses = fields.split(' ').skip(ARG_START).map_while(|field| field.trim().parse::<u64>().ok());
    let (Some(start), Some(end)) = (addresses.next(), addresses.next()) else {
        return Err(io::Error::other("/proc/self/stat does not say where the arguments are"));
    };
    let memory = OpenOptions::new().read(true).write(true).open("/proc/self/mem")?;
    let mut arguments = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(0)];
    memory.read_exact_at(&mut arguments, start)?;
    let blank = vec![b'x'; secret.len()];
    let found = arguments.windows(secret.len()).enumerate().filter(|(_, window)| *window == secret);
    found.map(|(index, _)| index as u64).try_for_each(|index| memory.write_all_at(&blank, start + index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_no_longer_to_be_seen() {
        // The test's own name, which stands in no argument, changes nothing.
        let before = fs::read("/proc/self/cmdline").unwrap();
        overwrite(b"stands-in-no-argument").unwrap();
        assert_eq!(fs::read("/proc/self/cmdline").unwrap(), before);
        // The program's own path does; only its last letters are taken, so that whoever looks on
        // still knows the process.
        let program = before.split(|byte| *byte == 0).next().unwrap();
        let tail = &program[program.len() - 4..];
        overwrite(tail).unwrap();
        let after = fs::read("/proc/self/cmdline").unwrap();
        assert!(after.split(|byte| *byte == 0).next().unwrap().ends_with(b"xxxx"));
        assert_eq!(after.len(), before.len());
    }
}
