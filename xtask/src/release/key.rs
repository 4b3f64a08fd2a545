//! The key of a release: what signs its files, by the `minisign` program, and the public half that
//! is built into them. The secret is the program's alone; this reads of its file only whether it
//! wants a password.

use std::{
    fs,
    io::{self, BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::packages;

pub(super) enum Key {
    None,
    /// Built in, and signs nothing.
    Public(String),
    Secret(Secret),
}

pub(super) struct Secret {
    file: PathBuf,
    /// As it is handed to each run of minisign; none where it asks a person itself, or needs none.
    password: Option<String>,
    public: String,
}

impl Key {
    pub(super) fn of(secret: Option<&Path>, public: Option<&str>) -> Result<Self> {
        match (secret, public) {
            (Some(file), _) => Ok(Self::Secret(Secret::open(file)?)),
            (None, Some(named)) => Ok(Self::Public(self::public(named)?)),
            (None, None) => Ok(Self::None),
        }
    }

    /// The public key's base64.
    pub(super) fn public(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Public(public) => Some(public),
            Self::Secret(secret) => Some(&secret.public),
        }
    }

    pub(super) fn signs(&self) -> bool {
        matches!(self, Self::Secret(_))
    }

    /// Writes the signature of `file` beside it, if this is a key to sign with.
    pub(super) fn sign(&self, file: &Path, comment: &str) -> Result<()> {
        let Self::Secret(secret) = self else { return Ok(()) };
        let mut sign = Command::new("minisign");
        sign.args(["-S", "-t", comment, "-s"]).arg(&secret.file).arg("-m").arg(file);
        secret.run(sign).with_context(|| format!("cannot sign {}", file.display()))
    }
}

/// The base64 of a public key that is named by itself or by its file.
pub(super) fn public(named: &str) -> Result<String> {
    let text = if Path::new(named).is_file() {
        fs::read_to_string(named).with_context(|| format!("cannot read {named}"))?
    } else {
        named.to_owned()
    };
    let line = base64_of(&text);
    line.with_context(|| format!("`{named}` is neither a public key of minisign nor its file"))
}

impl Secret {
    fn open(file: &Path) -> Result<Self> {
        packages::install(&[packages::SIGNING])?;
        let file = std::path::absolute(file).context("cannot tell where --key is")?;
        let text = fs::read_to_string(&file);
        let text = text.with_context(|| format!("cannot read the secret key {}", file.display()))?;
        let algorithm = text.lines().nth(1).and_then(|line| line.get(..ALGORITHM));
        let password = match algorithm {
            Some(PLAIN) => None,
            Some(ENCRYPTED) if io::stdin().is_terminal() => None,
            Some(ENCRYPTED) => Some(password()?),
            _ => bail!("{} is no secret key of minisign: make one with `minisign -G`", file.display()),
        };
        let mut secret = Self { file, password, public: String::new() };
        let folder = tempfile::tempdir().context("cannot create a folder for the public key")?;
        let public = folder.path().join("release.pub");
        let mut recreate = Command::new("minisign");
        recreate.args(["-R", "-s"]).arg(&secret.file).arg("-p").arg(&public);
        secret.run(recreate).with_context(|| format!("cannot use the key {}", secret.file.display()))?;
        let text = fs::read_to_string(&public).context("minisign wrote no public key")?;
        secret.public = base64_of(&text).context("minisign wrote a public key that cannot be read")?;
        Ok(secret)
    }

    fn run(&self, mut minisign: Command) -> Result<()> {
        let stdin = if self.password.is_some() { Stdio::piped() } else { Stdio::inherit() };
        let mut child = minisign.stdin(stdin).stdout(Stdio::null()).spawn().context("cannot run minisign")?;
        if let (Some(password), Some(mut stdin)) = (&self.password, child.stdin.take()) {
            stdin.write_all(password.as_bytes()).context("minisign does not read the password")?;
        }
        let status = child.wait().context("cannot wait for minisign")?;
        ensure!(status.success(), "minisign ended with {status}");
        Ok(())
    }
}

/// The second line of a secret key is base64. Six letters of it say how it signs, and the next
/// bytes with what it is encrypted: scrypt, or nothing.
const ALGORITHM: usize = 6;
const PLAIN: &str = "RWQAAE";
const ENCRYPTED: &str = "RWRTY0";

fn password() -> Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("cannot read the key's password from standard input")?;
    ensure!(!line.trim_end().is_empty(), "the key wants a password: write it to standard input, on one line");
    Ok(line)
}

/// The key of a `.pub` file, or of its last line alone.
fn base64_of(text: &str) -> Option<String> {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    let letters = line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
    (letters && line.len() == 56 && line.starts_with("RW")).then(|| line.to_owned())
}
