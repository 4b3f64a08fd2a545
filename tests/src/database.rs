//! A PostgreSQL server for controllers that serve it together, and what it has done so far.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

use crate::cluster::Cluster;

const PASSWORD: &str = "password";

/// What all controllers of one database are given alike, beside its address.
const SECRETS: [(&str, &str); 4] = [
    ("SHARED", "true"),
    ("JWT_SECRET", "a secret that all controllers of a test share, long enough for them"),
    ("NOTI_WEBHOOK_SECRET", "whsec_YSBzZWNyZXQgdGhhdCBhbGwgY29udHJvbGxlcnMgc2hhcmU="),
    ("NOTI_SERVICE_TOKEN", "a token that all controllers of a test show to NOTI"),
];

/// A server that runs until this is dropped.
pub struct Database(Cluster);

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Database").field(&self.0.url()).finish()
    }
}

impl Database {
    /// Makes one and starts it.
    pub fn start() -> Result<Self> {
        Ok(Self(Cluster::start(PASSWORD).context("PostgreSQL does not start")?))
    }

    /// Its address over a socket in its folder.
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// Its port on the loopback.
    pub fn port(&self) -> Result<u16> {
        let url: reqwest::Url = self.0.tcp_url("postgres").parse()?;
        url.port().context("a server without a port")
    }

    /// Its address over TCP, at another port of the loopback.
    pub fn url_at(port: u16) -> String {
        format!("postgres://aio:{PASSWORD}@127.0.0.1:{port}/postgres")
    }

    /// The environment of a controller that is one of several on the database at `url`.
    pub fn environment(url: &str, public_url: &str) -> Vec<(String, String)> {
        let named = [("DATABASE_URL", url), ("PUBLIC_URL", public_url)].into_iter().chain(SECRETS);
        named.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// A crash, and the start after it.
    pub fn crash(&mut self) -> Result<()> {
        self.0.stop("immediate")?;
        Ok(self.0.run()?)
    }

    /// What psql answers.
    pub fn ask(&self, statement: &str) -> Result<String> {
        Ok(self.0.sql("postgres", statement)?)
    }

    /// Transactions so far that were committed.
    pub fn commits(&self) -> Result<u64> {
        Ok(self.ask("SELECT SUM(xact_commit) FROM pg_stat_database")?.parse()?)
    }

    /// Time on a processor so far of the server's processes, those that ended included.
    pub fn processor_time(&self) -> Result<Duration> {
        // The first of its processes has waited for those that ended.
        let line = fs::read_to_string(self.0.data().join("postmaster.pid"))?;
        let main: u32 = line.lines().next().unwrap_or_default().parse()?;
        let mut ticks = 0;
        for entry in fs::read_dir("/proc")?.flatten() {
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((pid, rest)) = stat.split_once(' ') else { continue };
            // The name stands in parentheses, and may have spaces.
            let fields: Vec<_> = rest.rsplit(") ").next().unwrap_or_default().split(' ').collect();
            let field = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
            if pid.parse() == Ok(main) {
                ticks += (11..15).filter_map(field).sum::<u64>();
            } else if field(1) == Some(main.into()) {
                ticks += (11..13).filter_map(field).sum::<u64>();
            }
        }
        Ok(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second())?)
    }
}
