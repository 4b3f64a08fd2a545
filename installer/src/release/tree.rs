//! A tree of releases on a server, for a daemon that brings one to its machine: small files whole
//! and bounded, a program by `download`. Verifies sizes and sums alone: whose releases they are is
//! root's to say, which believes nothing of this.

use std::{fs::File, io::Read, path::Path, time::Duration};

use aio_host::{proxy::Proxy, tls::Trust};
use aio_protocol::{
    error_code::ErrorCode,
    release::{Checksum, ReleaseManifest},
};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::time::sleep;

use super::{
    download,
    verify::{self, Check, Promise},
};
use crate::{console::Console, controller::http, failure::Failure};

/// Tries in a row for a small file.
const MAX_TRIES: u32 = 4;

/// A tree of releases, and the way to it.
#[derive(Debug, Clone)]
pub struct ReleaseTree {
    client: Client,
    base: Url,
}

impl ReleaseTree {
    /// The tree at `base`, trusted and reached as the controller is: through `proxy`, or what the
    /// environment says, and in the clear only where that is allowed.
    pub fn at(
        base: &str,
        trust: &Trust,
        proxy: Option<&Proxy>,
        insecure_http: bool,
    ) -> Result<Self, Failure> {
        // Without its slash, a URL's last part would give way to what is joined.
        let base = format!("{}/", base.trim_end_matches('/'));
        let base = http::parse(&base, "the address of the releases", insecure_http)?;
        let proxy = proxy.map(http::through).transpose()?;
        let client = http::client_through(&base, trust, proxy, insecure_http, None)?;
        Ok(Self { client, base })
    }

    fn url(&self, path: &str) -> Result<Url, Failure> {
        let url = self.base.join(path).ok().filter(|url| url.as_str().starts_with(self.base.as_str()));
        url.ok_or_else(|| {
            Failure::new(ErrorCode::DownloadFailed, format!("{path} is no place below {}", self.base))
        })
    }

    /// The bytes of a small file, of which there are at most `limit`.
    pub async fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, Failure> {
        let url = self.url(path)?;
        let mut tries = 0;
        loop {
            let (failure, passing) = match self.once(&url, limit).await {
                Ok(bytes) => return Ok(bytes),
                Err(failed) => failed,
            };
            tries += 1;
            if !passing || tries >= MAX_TRIES {
                return Err(failure);
            }
            sleep(http::pause(tries - 1, None).min(Duration::from_secs(10))).await;
        }
    }

    /// One try; with the failure, whether another may do better.
    async fn once(&self, url: &Url, limit: u64) -> Result<Vec<u8>, (Failure, bool)> {
        let request = self.client.get(url.clone());
        let mut response = request.send().await.map_err(|error| lost(url, error))?;
        admit(url, &response)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| lost(url, error))? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                let message = format!("{url} has more than {limit} bytes");
                return Err((Failure::new(ErrorCode::SizeMismatch, message), false));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Brings the program that `release` names from `path` into the file `to`, unless it is there
    /// already.
    pub async fn bring(&self, path: &str, release: &ReleaseManifest, to: &Path) -> Result<(), Failure> {
        let url = self.url(path)?;
        let promise = Promise::of(release.clone(), url.as_str(), None)?;
        if is_there(&promise, to) {
            return Ok(());
        }
        download::fetch(&self.client, &url, &promise, to, &Console::Silent, &|_| {}).await
    }
}

/// The SHA-256 of `bytes`.
pub fn checksum(bytes: &[u8]) -> Checksum {
    verify::checksum(bytes)
}

fn admit(url: &Url, response: &Response) -> Result<(), (Failure, bool)> {
    let status = response.status();
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            let message = format!("the release server has no {url} ({status})");
            Err((Failure::new(ErrorCode::ReleaseNotFound, message), false))
        }
        _ => {
            let message = format!("{url} could not be downloaded: the server answered {status}");
            let passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            Err((Failure::new(ErrorCode::DownloadFailed, message), passing))
        }
    }
}

fn lost(url: &Url, error: reqwest::Error) -> (Failure, bool) {
    if let Some(objection) = aio_host::tls::explain(&error) {
        let message = format!("{url} could not be downloaded: {} [{}]", objection.message, objection.code);
        return (Failure::new(ErrorCode::DownloadFailed, message), false);
    }
    let passing = !error.is_redirect();
    let message = format!("{url} could not be downloaded: {}", http::reason(error));
    (Failure::new(ErrorCode::DownloadFailed, message), passing)
}

/// Whether an earlier try has brought the very file.
fn is_there(promise: &Promise, path: &Path) -> bool {
    let whole = || {
        let (mut file, mut check) = (File::open(path).ok()?, Check::new(promise).ok()?);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match file.read(&mut buffer).ok()? {
                0 => return check.finish().ok(),
                length => check.update(buffer.get(..length)?).ok()?,
            }
        }
    };
    whole().is_some()
}
