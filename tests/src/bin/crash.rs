//! An installation that kills itself with SIGKILL at one moment: what `aio-worker install` does,
//! with a checkpoint that is none. Only for the lab. `aio-crash list` prints all moments,
//! `aio-crash at MOMENT TOKEN` dies there.

use std::{pin::Pin, time::SystemTime};

use aio_host::{layout::Layout, systemd::Systemd};
use aio_installer::{
    Checkpoint, Failure, Host, Journald, Point, Request, STEPS, Surroundings, SystemAccounts,
    console::Console, install::install, parse_token,
};
use aio_protocol::release::Platform;
use anyhow::{Context, Result, bail};
use rustix::process::{Signal, getpid, kill_process};

/// Dies at one moment, without a word and without a chance to clear up.
struct DieAt(String);

impl Checkpoint for DieAt {
    fn reached<'a>(&'a self, point: Point<'a>) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>> {
        if format!("{point:?}") == self.0 {
            // It does not return.
            let _ = kill_process(getpid(), Signal::KILL);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

fn moments() -> impl Iterator<Item = String> {
    let points =
        STEPS.iter().flat_map(|step| [Point::Intended(step), Point::Applied(step), Point::Done(step)]);
    points.chain([Point::Complete]).map(|point| format!("{point:?}"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["list"] => moments().for_each(|moment| println!("{moment}")),
        ["at", moment, token] => die(moment, token).await?,
        _ => bail!("say `list`, or `at MOMENT TOKEN`"),
    }
    Ok(())
}

async fn die(moment: &str, token: &str) -> Result<()> {
    let failed = |failure: Failure| anyhow::anyhow!("{}: {}", failure.code, failure.message);
    aio_host::tls::install_provider();
    let host = Host {
        layout: Layout::default(),
        systemd: Systemd::connect().await.context("no systemd")?,
        accounts: Box::new(SystemAccounts::default()),
        service_log: Box::new(Journald),
        platform: Platform::of_architecture(std::env::consts::ARCH).context("no platform")?,
    };
    let token = parse_token(&token.into(), SystemTime::now().into()).map_err(failed)?;
    let surroundings = Surroundings {
        console: &Console::Silent,
        checkpoint: &DieAt(moment.to_owned()),
        interrupt: Box::pin(std::future::pending()),
    };
    install(&host, &Request::new(token), surroundings).await.map_err(failed)?;
    bail!("{moment} never came")
}
