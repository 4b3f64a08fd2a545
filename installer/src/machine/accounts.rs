//! The daemon's user: whether it is there, made after our declaration by `systemd-sysusers`, and
//! taken away again. Its files are edited by the system's own tools, because others edit them too.
//! Who decides that is `step/create_user`.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::MetadataExt,
    path::Path,
    pin::Pin,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use aio_host::files;
use aio_protocol::error_code::ErrorCode;
use rustix::fs::{FlockOperation, fcntl_lock};
use tokio::{
    process::Command,
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use crate::failure::Failure;

/// For one tool; they wait for each other on a lock of the system.
const TOOL_TIMEOUT: Duration = Duration::from_secs(30);

/// A tool that takes longer may wait for the lock, and the operator is told.
const SLOW_TOOL: Duration = Duration::from_secs(2);

/// What an account tool's run comes to.
pub type Ran<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// Who edits the system's accounts.
pub trait Accounts {
    /// Makes the user and group that the sysusers file at `declaration` names, unless they are
    /// there.
    fn create<'a>(&'a self, declaration: &'a Path) -> Ran<'a>;
    /// Takes a user away.
    fn remove_user<'a>(&'a self, name: &'a str) -> Ran<'a>;
    /// Takes a group away.
    fn remove_group<'a>(&'a self, name: &'a str) -> Ran<'a>;
    /// Waits for the end of whatever was begun and is no longer waited for.
    fn settled<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(std::future::ready(()))
    }
}

/// The real system's tools, one at a time. A tool that has begun comes to its end even if nobody
/// waits for it any more: killed in mid-work it would leave half of it in `/etc`.
#[derive(Debug, Clone, Default)]
pub struct SystemAccounts {
    turn: Arc<Mutex<()>>,
}

impl Accounts for SystemAccounts {
    fn create<'a>(&'a self, declaration: &'a Path) -> Ran<'a> {
        Box::pin(self.run("systemd-sysusers", declaration))
    }

    fn remove_user<'a>(&'a self, name: &'a str) -> Ran<'a> {
        Box::pin(self.run("userdel", Path::new(name)))
    }

    fn remove_group<'a>(&'a self, name: &'a str) -> Ran<'a> {
        Box::pin(self.run("groupdel", Path::new(name)))
    }

    fn settled<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(async { drop(self.turn.lock().await) })
    }
}

impl SystemAccounts {
    async fn run(&self, tool: &'static str, argument: &Path) -> Result<(), Failure> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let argument = argument.to_owned();
        let running = tokio::spawn(async move {
            let ran = run(tool, &argument).await;
            drop(turn);
            ran
        });
        running.await.unwrap_or_else(|error| Err(Failure::new(ErrorCode::Internal, error.to_string())))
    }
}

async fn run(tool: &'static str, argument: &Path) -> Result<(), Failure> {
    let failed = |why: String| {
        let message = format!("`{tool} {}` {why}", argument.display());
        Failure::new(ErrorCode::FileFailed, message).with("tool", tool)
    };
    // Nothing of our environment: it may hold the token.
    let child = Command::new(tool)
        .arg(argument)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    tokio::pin!(child);
    let ended = match timeout(SLOW_TOOL, &mut child).await {
        Err(_) => {
            if let Some(holder) = lock_holder(Path::new("/etc")) {
                tracing::warn!("waiting for {holder}, which holds /etc/{LOCK}");
            }
            timeout(TOOL_TIMEOUT - SLOW_TOOL, child).await
        }
        ended => ended,
    };
    let output = ended
        .map_err(|_| {
            let failure = failed(format!("did not end within {} s", TOOL_TIMEOUT.as_secs()));
            match lock_holder(Path::new("/etc")) {
                Some(holder) => {
                    let message = format!("{}: {holder} holds /etc/{LOCK}", failure.message);
                    Failure { code: ErrorCode::AccountsLocked, message, ..failure }
                }
                None => failure,
            }
        })?
        .map_err(|error| failed(format!("could not be run: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("ended with {}: {}", output.status, said.trim())))
}

/// What account tools call the files that they will put in place of the account files:
/// systemd-sysusers makes them with mkostemp(3).
const STAGES: [&str; 4] = [".#passwd", ".#group", ".#shadow", ".#gshadow"];

/// The lock of all account tools, see lckpwdf(3).
const LOCK: &str = ".pwd.lock";

/// For a tool that holds it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Who holds the lock of all account tools in `dir`, in words.
pub(crate) fn lock_holder(dir: &Path) -> Option<String> {
    let file = fs::metadata(dir.join(LOCK)).ok()?;
    let pid = holder_of(file.dev(), file.ino(), &fs::read_to_string("/proc/locks").ok()?)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(if name.is_empty() {
        "another program".to_owned()
    } else {
        format!("{} (process {pid})", name.trim())
    })
}

/// The process that holds a lock of this file, by the lines of proc_locks(5): `1: POSIX ADVISORY
/// WRITE 4711 fe:00:1234 0 EOF`, whose device numbers are hexadecimal. It is -1 for a lock of an
/// open file description. A line with `->` is a process that waits.
fn holder_of(device: u64, inode: u64, locks: &str) -> Option<i64> {
    let file = format!("{:02x}:{:02x}:{inode}", rustix::fs::major(device), rustix::fs::minor(device));
    locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, _, _, _, pid, locked, ..] = words[..] else { return None };
        (locked == file).then(|| pid.parse().ok())?
    })
}

/// The half-written account files in `dir`.
pub(crate) fn stages(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str().map(str::to_owned));
    names.filter(|name| STAGES.iter().any(|stage| name.starts_with(stage))).collect()
}

/// Removes the half-written account files in `dir` but for those that are `known`. While an account
/// tool runs they may be its own, so it waits for their common lock.
pub(crate) async fn remove_stages(dir: &Path, known: &[String]) -> Result<(), Failure> {
    if stages(dir).iter().all(|name| known.contains(name)) {
        return Ok(());
    }
    let path = dir.join(LOCK);
    // Without the file nobody holds the lock.
    let lock = OpenOptions::new().write(true).open(&path).ok();
    if let Some(lock) = &lock {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        while let Err(error) = fcntl_lock(lock, FlockOperation::NonBlockingLockExclusive) {
            if Instant::now() > deadline {
                return Err(Failure::io("lock", &path, &error.into()));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    for name in stages(dir).into_iter().filter(|name| !known.contains(name)) {
        files::remove_file(&dir.join(name))?;
    }
    Ok(())
}

/// Whether a line of `passwd` or `group` form in `text` is `name`'s.
pub(crate) fn lists(text: &str, name: &str) -> bool {
    text.lines().any(|line| line.split(':').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[tokio::test]
    async fn what_a_killed_tool_left_goes_and_what_others_left_stays() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".#passwdAAAAAA", ".#other", "passwd", ".pwd.lock"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let known = stages(dir.path());
        assert_eq!(known, [".#passwdAAAAAA"]);
        for name in [".#passwdBBBBBB", ".#groupCCCCCC", ".#gshadowDDDDDD"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        remove_stages(dir.path(), &known).await.unwrap();
        assert_eq!(stages(dir.path()), known);
        assert!(dir.path().join(".#other").exists());
    }

    #[test]
    fn who_holds_the_lock_is_told() {
        let locks = "1: POSIX  ADVISORY  WRITE 812 00:19:1187 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 4711 fe:10:1234 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 4712 fe:10:1235 0 EOF\n\
                     3: OFDLCK ADVISORY  READ -1 00:05:9 0 EOF\n";
        let device = |major, minor| rustix::fs::makedev(major, minor);
        assert_eq!(holder_of(device(0, 0x19), 1187, locks), Some(812));
        assert_eq!(holder_of(device(0xfe, 0x10), 1234, locks), Some(4711));
        assert_eq!(holder_of(device(0xfe, 0x10), 1235, locks), None, "it waits");
        assert_eq!(holder_of(device(0, 5), 9, locks), Some(-1));
        assert_eq!(holder_of(device(0, 5), 1187, locks), None);

        let dir = tempfile::tempdir().unwrap();
        let lock = File::create(dir.path().join(LOCK)).unwrap();
        assert_eq!(lock_holder(dir.path()), None);
        fcntl_lock(&lock, FlockOperation::LockExclusive).unwrap();
        let words = lock_holder(dir.path()).unwrap();
        assert!(words.ends_with(&format!("(process {})", std::process::id())), "{words}");
    }

    #[tokio::test]
    async fn a_tool_that_nobody_waits_for_comes_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
        let accounts = SystemAccounts::default();
        // It opens the file and waits for somebody who reads.
        let output = format!("of={}", fifo.display());
        let given_up = timeout(Duration::from_millis(100), accounts.run("dd", Path::new(&output)));
        assert!(given_up.await.is_err());
        assert!(timeout(Duration::from_millis(100), accounts.settled()).await.is_err(), "it still runs");
        let reader = tokio::task::spawn_blocking(move || fs::read(fifo));
        timeout(TOOL_TIMEOUT, accounts.settled()).await.unwrap();
        assert!(reader.await.unwrap().is_ok());
    }

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\naio-worker:x:999:999::/:/usr/sbin/nologin\n";
        assert!(lists(passwd, "aio-worker"));
        assert!(!lists(passwd, "aio"));
        assert!(!lists(passwd, "x"));
    }
}
