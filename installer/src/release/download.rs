//! Brings a release file from its server into one local file: taken up where it was when the
//! transfer breaks, given up when it gets no further, and checked as the bytes come. Does not
//! decide where the file goes, nor ever makes it executable.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use aio_host::tls;
use aio_protocol::error_code::ErrorCode;
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{self, HeaderValue},
};
use tokio::time::sleep;

use crate::{
    console::Console,
    controller::http::{self, MAX_RETRY_AFTER},
    failure::Failure,
    release::verify::{Check, Promise},
};

/// Transfers in a row that bring the file no further, before it is given up.
const MAX_FAILURES: u32 = 4;
/// A pause that a person would wonder about.
const MIN_TOLD_PAUSE: Duration = Duration::from_secs(3);
/// This part of the file, at least, is some way further.
const PROGRESS_PARTS: u64 = 16;

/// A transfer that failed, and whether another may do better; if so, how long the server asked to
/// wait.
struct Broken {
    failure: Failure,
    again: Option<Option<Duration>>,
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self { failure, again: None }
    }
}

/// Fetches what `promise` names into `path`, a new file that only root can read. `received` hears
/// of every piece.
pub(crate) async fn fetch(
    client: &Client,
    url: &Url,
    promise: &Promise,
    path: &Path,
    console: &Console,
    received: &impl Fn(u64),
) -> Result<(), Failure> {
    let mut part = Part::begin(promise, path)?;
    let (mut failed, mut furthest) = (0, 0);
    loop {
        let Broken { failure, again } = match part.go_on(client, url, received).await {
            Ok(()) => return part.sync(),
            Err(broken) => broken,
        };
        if part.bytes >= furthest + promise.release.size / PROGRESS_PARTS {
            (failed, furthest) = (0, part.bytes);
        }
        failed += 1;
        let Some(asked) = again.filter(|_| failed < MAX_FAILURES) else { return Err(failure) };
        let pause = http::pause(failed - 1, asked);
        if pause > MAX_RETRY_AFTER {
            return Err(http::asked_too_much(failure, pause));
        }
        if pause >= MIN_TOLD_PAUSE {
            console.say(&format!("{}; trying again in {} s, as it asks", failure.message, pause.as_secs()));
        }
        tracing::info!(message = %failure.message, failed, bytes = part.bytes, ?pause, "the download broke; it will be tried again");
        sleep(pause).await;
    }
}

/// What has come so far. A transfer that breaks is taken up behind it, if the server can say that
/// its file is still the same.
struct Part<'p> {
    promise: &'p Promise,
    path: &'p Path,
    file: File,
    check: Check<'p>,
    bytes: u64,
    /// The server's word for this very file (`ETag`, or else `Last-Modified`).
    validator: Option<HeaderValue>,
    /// Whether the bytes are of more than one transfer.
    resumed: bool,
    /// Parts that did not fit together are not tried twice.
    whole_only: bool,
}

impl<'p> Part<'p> {
    fn begin(promise: &'p Promise, path: &'p Path) -> Result<Self, Failure> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        Ok(Self {
            promise,
            path,
            file: file.map_err(|error| Failure::io("create", path, &error))?,
            check: Check::new(promise)?,
            bytes: 0,
            validator: None,
            resumed: false,
            whole_only: false,
        })
    }

    /// Forgets what has come.
    fn begin_again(&mut self) -> Result<(), Failure> {
        *self = Self { whole_only: self.whole_only, ..Self::begin(self.promise, self.path)? };
        Ok(())
    }

    /// One transfer: to the end, and to the verdict on the whole.
    async fn go_on(&mut self, client: &Client, url: &Url, received: &impl Fn(u64)) -> Result<(), Broken> {
        let mut request = client.get(url.clone());
        let resumes = self.bytes > 0 && !self.whole_only;
        if let Some(validator) = self.validator.as_ref().filter(|_| resumes) {
            let range = format!("bytes={}-", self.bytes);
            request = request.header(header::RANGE, range).header(header::IF_RANGE, validator);
        }
        // A redirect that was refused stays refused; all else may have been bad luck.
        let mut response = request.send().await.map_err(|error| {
            let again = !error.is_redirect();
            let broken = lost(url, error);
            Broken { again: broken.again.filter(|_| again), ..broken }
        })?;
        self.admit(url, &response)?;
        received(self.bytes);
        while let Some(chunk) = response.chunk().await.map_err(|error| lost(url, error))? {
            self.check.update(&chunk)?;
            self.file.write_all(&chunk).map_err(|error| Failure::io("write", self.path, &error))?;
            self.bytes += chunk.len() as u64;
            received(self.bytes);
        }
        let check = std::mem::replace(&mut self.check, Check::new(self.promise)?);
        let resumed = self.resumed;
        match check.finish() {
            // The parts may be of different files after all: the whole in one transfer may be
            // right.
            Err(failure) if resumed => {
                self.whole_only = true;
                Err(Broken { failure, again: Some(None) })
            }
            verdict => Ok(verdict?),
        }
    }

    /// Whether the head of an answer promises the right body: all of it, or what is missing.
    fn admit(&mut self, url: &Url, response: &Response) -> Result<(), Broken> {
        let status = response.status();
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                let message = format!("the release server has no {url} ({status})");
                return Err(Failure::new(ErrorCode::ReleaseNotFound, message)
                    .with("url", url.as_str())
                    .into());
            }
            StatusCode::PARTIAL_CONTENT if begins_at(response, self.bytes) => self.resumed = true,
            StatusCode::OK => {
                self.begin_again()?;
                let headers = response.headers();
                let strong = |tag: &&HeaderValue| !tag.as_bytes().starts_with(b"W/");
                let validator = headers.get(header::ETAG).filter(strong);
                self.validator = validator.or_else(|| headers.get(header::LAST_MODIFIED)).cloned();
            }
            _ => {
                let Broken { failure, .. } =
                    broken(url, &format!("could not be downloaded: the server answered {status}"));
                // It has another file by now, or cannot give parts: then all of it, once.
                let no_parts =
                    !self.whole_only && self.bytes > 0 && matches!(status.as_u16(), 206 | 412 | 416);
                self.whole_only |= no_parts;
                let passing = no_parts || status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
                let again = passing.then(|| http::retry_after(response));
                return Err(Broken { failure: failure.with("status", status.as_u16()), again });
            }
        }
        let missing = self.promise.release.size.saturating_sub(self.bytes);
        match response.content_length() {
            Some(length) if length != missing => {
                Err(self.promise.wrong_size(&format!("{} bytes", self.bytes + length)).into())
            }
            _ => Ok(()),
        }
    }

    fn sync(&self) -> Result<(), Failure> {
        self.file.sync_all().map_err(|error| Failure::io("write", self.path, &error))
    }
}

/// Whether a part of the file begins at its `bytes`-th byte.
fn begins_at(response: &Response, bytes: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse::<u64>().ok());
    start == Some(bytes)
}

fn lost(url: &Url, error: reqwest::Error) -> Broken {
    match tls::explain(&error) {
        Some(objection) => Broken {
            again: None,
            ..broken(url, &format!("could not be downloaded: {} [{}]", objection.message, objection.code))
        },
        None => broken(url, &format!("could not be downloaded: {}", http::reason(error))),
    }
}

fn broken(url: &Url, what: &str) -> Broken {
    let failure = Failure::new(ErrorCode::DownloadFailed, format!("{url} {what}")).with("url", url.as_str());
    Broken { failure, again: Some(None) }
}
