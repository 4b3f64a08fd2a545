//! Brings a release file from its server into one local file: tried again when the transfer breaks, given up when it stalls, and
//! checked as the bytes come. Does not decide where the file goes, nor ever makes it executable.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use aio_host::tls;
use aio_protocol::error_code::ErrorCode;
use reqwest::{Client, Response, StatusCode, Url};
use tokio::time::sleep;

use crate::{
    failure::Failure,
    http::{self, MAX_RETRY_AFTER},
    verify::{Check, Promise},
};

/// Transfers that are begun before it is given up.
const TRIES: u32 = 4;

/// A transfer that failed, and whether another may do better; if so, how long the server asked to wait.
struct Broken {
    failure: Failure,
    again: Option<Option<Duration>>,
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self { failure, again: None }
    }
}

/// Fetches what `promise` names into `path`, a new file that only root can read. `received` hears of every piece.
pub(crate) async fn fetch(
    client: &Client,
    url: &Url,
    promise: &Promise,
    path: &Path,
    received: &impl Fn(u64),
) -> Result<(), Failure> {
    let mut failed = 0;
    loop {
        let Broken { failure, again } = match transfer(client, url, promise, path, received).await {
            Ok(()) => return Ok(()),
            Err(broken) => broken,
        };
        failed += 1;
        let Some(asked) = again.filter(|_| failed < TRIES) else { return Err(failure) };
        let pause = http::pause(failed - 1, asked);
        if pause > MAX_RETRY_AFTER {
            return Err(failure);
        }
        tracing::info!(message = %failure.message, failed, ?pause, "the download broke; it will be tried again");
        sleep(pause).await;
    }
}

async fn transfer(
    client: &Client,
    url: &Url,
    promise: &Promise,
    path: &Path,
    received: &impl Fn(u64),
) -> Result<(), Broken> {
    let lost = |error: reqwest::Error| match tls::explain(&error) {
        Some(trouble) => Broken {
            again: None,
            ..broken(url, &format!("could not be downloaded: {} [{}]", trouble.words, trouble.code))
        },
        None => broken(url, &format!("could not be downloaded: {}", http::reason(error))),
    };
    // A redirect that was refused stays refused; all else may have been bad luck.
    let mut response = client.get(url.clone()).send().await.map_err(|error| {
        let again = !error.is_redirect();
        let broken = lost(error);
        Broken { again: broken.again.filter(|_| again), ..broken }
    })?;
    admit(url, promise, &response)?;

    let mut check = Check::new(promise)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Failure::io("create", path, &error))?;
    let mut bytes = 0;
    received(0);
    while let Some(chunk) = response.chunk().await.map_err(lost)? {
        check.update(&chunk)?;
        file.write_all(&chunk).map_err(|error| Failure::io("write", path, &error))?;
        bytes += chunk.len() as u64;
        received(bytes);
    }
    check.finish()?;
    file.sync_all().map_err(|error| Failure::io("write", path, &error))?;
    Ok(())
}

/// Whether the head of an answer promises the right body.
fn admit(url: &Url, promise: &Promise, response: &Response) -> Result<(), Broken> {
    let status = response.status();
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            let message = format!("the release server has no {url} ({status})");
            return Err(Failure::new(ErrorCode::ReleaseNotFound, message).with("url", url.as_str()).into());
        }
        StatusCode::OK => {}
        _ => {
            let Broken { failure, .. } =
                broken(url, &format!("could not be downloaded: the server answered {status}"));
            let passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            let again = passing.then(|| http::retry_after(response));
            return Err(Broken { failure: failure.with("status", status.as_u16()), again });
        }
    }
    match response.content_length() {
        Some(length) if length != promise.size => Err(promise.wrong_size(&format!("{length} bytes")).into()),
        _ => Ok(()),
    }
}

fn broken(url: &Url, what: &str) -> Broken {
    let failure = Failure::new(ErrorCode::DownloadFailed, format!("{url} {what}")).with("url", url.as_str());
    Broken { failure, again: Some(None) }
}
