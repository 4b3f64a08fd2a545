//! A PostgreSQL server of a test's own: made in its folder, run by a user without rights, reached over a
//! socket of the folder and over TCP, and ended with the test. Debian's package `postgresql` brings the
//! programs.

use std::{
    fs::{self, File, Permissions},
    io,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, as long as this lives.
pub(crate) struct Cluster {
    folder: TempDir,
    port: u16,
    /// What it is started with beside what every cluster is.
    settings: Vec<String>,
    process: Option<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.stop("immediate");
    }
}

impl Cluster {
    /// Makes a server and starts it. Its user is `aio`; over TCP the password is `password`.
    pub(crate) fn start(password: &str) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut cluster = Self { folder, port, settings: Vec::new(), process: None };
        give_away(cluster.folder.path())?;
        let word = cluster.own_file("password", password)?;
        // A collation that is not that of bytes, as servers of operators have.
        let mut init = cluster.program("initdb")?;
        init.args(["--username=aio", "--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8"]);
        init.args(["--locale-provider=icu", "--icu-locale=en-US", "--locale=C.UTF-8", "--no-sync"]);
        init.arg("--pwfile").arg(&word).arg("--pgdata").arg(cluster.data());
        let made = init.output()?;
        if !made.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned()));
        }
        cluster.run()?;
        Ok(cluster)
    }

    /// Its address over the socket, of the database `postgres`.
    pub(crate) fn url(&self) -> String {
        format!("postgres://aio@localhost:{}/postgres?host={}", self.port, self.folder.path().display())
    }

    /// Its address over TCP, without a password.
    pub(crate) fn tcp_url(&self, database: &str) -> String {
        format!("postgres://aio@localhost:{}/{database}", self.port)
    }

    /// Starts it after `stop`, and waits until it takes connections.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut server = self.program("postgres")?;
        server.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-k"]).arg(self.folder.path());
        server.args(["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=300"]);
        for setting in &self.settings {
            server.args(["-c", setting]);
        }
        let log = File::options().create(true).append(true).open(self.folder.path().join("log"))?;
        self.process = Some(server.stdout(Stdio::null()).stderr(log).spawn()?);
        let began = Instant::now();
        while !self.sql("postgres", "SELECT 1").is_ok_and(|answer| answer == "1") {
            if began.elapsed() > PATIENCE {
                return Err(io::Error::other("the server does not start"));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends it: `smart`, `fast`, or `immediate`, which is a crash.
    pub(crate) fn stop(&mut self, how: &str) -> io::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        self.program("pg_ctl")?
            .args(["stop", "--silent", "--mode", how, "--pgdata"])
            .arg(self.data())
            .stdout(Stdio::null())
            .status()?;
        process.wait()?;
        Ok(())
    }

    /// What `run` starts it with from now on.
    pub(crate) fn set(&mut self, setting: impl Into<String>) {
        self.settings.push(setting.into());
    }

    /// A file of the server's, which its user alone may read.
    pub(crate) fn own_file(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        give_away(&path)?;
        Ok(path)
    }

    /// A folder of the server's.
    pub(crate) fn own_folder(&self, path: &Path) -> io::Result<PathBuf> {
        fs::create_dir(path)?;
        give_away(path)?;
        Ok(path.to_owned())
    }

    /// What a statement answers, by psql.
    pub(crate) fn sql(&self, database: &str, statement: &str) -> io::Result<String> {
        let mut psql = self.program("psql")?;
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--username=aio", "--port"]);
        psql.arg(self.port.to_string()).arg("--host").arg(self.folder.path());
        let answer = psql.args(["--dbname", database, "--command", statement]).output()?;
        if !answer.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&answer.stderr).into_owned()));
        }
        Ok(String::from_utf8_lossy(&answer.stdout).trim_end().to_owned())
    }

    /// The folder of its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A program of the newest version that is installed, as a user that may run servers.
    fn program(&self, name: &str) -> io::Result<Command> {
        let versions = fs::read_dir("/usr/lib/postgresql")?.filter_map(|entry| Some(entry.ok()?.path()));
        let newest = versions.max().ok_or_else(|| io::Error::other("PostgreSQL is not installed"))?;
        let program = newest.join("bin").join(name);
        let mut command = if owner().is_some() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir("/");
        Ok(command)
    }
}

fn give_away(path: &Path) -> io::Result<()> {
    owner().map_or(Ok(()), |(user, group)| chown(path, Some(user), Some(group)))
}

/// The user to run a server as where this is root, whom a server refuses.
fn owner() -> Option<(u32, u32)> {
    let home = fs::metadata("/var/lib/postgresql").ok()?;
    rustix::process::geteuid().is_root().then_some((home.uid(), home.gid()))
}
