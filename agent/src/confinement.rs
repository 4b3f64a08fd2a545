//! What the daemon gives up by itself once it runs, because no unit can take it away before: to
//! become another program. It starts none, so a shell in it is always somebody else's. Everything
//! else of the sandbox stands in `systemd/aio-worker.service`.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// What makes a process another program.
const EXECUTIONS: [i64; 2] = [libc::SYS_execve, libc::SYS_execveat];

/// What a library takes for "not here" and goes on.
const REFUSED: u32 = libc::EPERM.unsigned_abs();

/// Refuses `execve` and `execveat` to this thread and to all that it starts from now on, for ever.
/// To be called while there is no other.
pub fn forbid_execution() -> Result<(), seccompiler::Error> {
    let architecture = std::env::consts::ARCH.try_into().map_err(seccompiler::Error::Backend)?;
    let rules: BTreeMap<_, _> = EXECUTIONS.into_iter().map(|call| (call, vec![])).collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(REFUSED), architecture)
        .map_err(seccompiler::Error::Backend)?;
    let program: BpfProgram = filter.try_into().map_err(seccompiler::Error::Backend)?;
    seccompiler::apply_filter(&program)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command, thread};

    use super::*;

    #[test]
    fn no_thread_that_comes_after_it_can_become_another_program() {
        let confined = thread::spawn(|| {
            Command::new("true").status().unwrap();
            forbid_execution().unwrap();
            let child = thread::spawn(|| Command::new("true").status().unwrap_err().raw_os_error());
            let itself = Command::new("sh").args(["-c", "id"]).output().unwrap_err().raw_os_error();
            // What is no execution goes on.
            fs::read_to_string("/proc/self/status").unwrap();
            (itself, child.join().unwrap())
        });
        assert_eq!(confined.join().unwrap(), (Some(1), Some(1)));
        assert!(Command::new("true").status().unwrap().success(), "other threads are not confined");
    }
}
