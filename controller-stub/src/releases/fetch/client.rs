//! GET and nothing else, bounded: how long a source may be silent, how much it may send, how often
//! it may redirect, and who gets the token. A file is resumed where it broke off. Judges no content.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use aio_protocol::time::Timestamp;
use reqwest::{Response, StatusCode, Url, header, redirect};
use secrecy::{ExposeSecret, SecretString};

use super::{
    error::{FetchError, io},
    s3::AccessKey,
};
use crate::{clock, config::exposure::is_exposed};

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Longest silence of a source.
    pub(super) silence: Duration,
    /// Longest time for a small answer.
    pub(super) small: Duration,
    /// Between two attempts.
    pub(super) pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(30),
            small: Duration::from_secs(60),
            pause: Duration::from_secs(2),
        }
    }
}

/// Attempts that may fail in a row without a byte of progress.
const ATTEMPTS: u32 = 3;

const MAX_REDIRECTS: usize = 5;

/// The largest file of a token.
const MAX_TOKEN_BYTES: usize = 4096;

/// Proves who asks.
#[derive(Clone)]
pub(super) enum Credential {
    Nobody,
    Bearer(SecretString),
    Bucket { key: AccessKey, region: String },
}

impl Credential {
    /// Reads the token's file; `region` is that of a bucket.
    pub(super) fn read(path: Option<&Path>, region: Option<&str>) -> Result<Self, FetchError> {
        let Some(path) = path else { return Ok(Self::Nobody) };
        let wrong =
            |problem: String, exposed| FetchError::TokenFile { path: path.to_owned(), problem, exposed };
        let text = std::fs::read_to_string(path)
            .map_err(|error| wrong(format!("cannot be read: {error}"), false))?;
        if is_exposed(path) {
            return Err(wrong("can be read by every user of this machine".to_owned(), true));
        }
        let text = SecretString::from(text);
        if text.expose_secret().len() > MAX_TOKEN_BYTES {
            return Err(wrong(format!("has more than {MAX_TOKEN_BYTES} bytes"), false));
        }
        match region {
            Some(region) => {
                let key = AccessKey::parse(text.expose_secret());
                let key = key.ok_or_else(|| {
                    wrong("needs the key's id and its secret, on a line each".to_owned(), false)
                })?;
                Ok(Self::Bucket { key, region: region.to_owned() })
            }
            None => {
                let token = text.expose_secret().trim();
                if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(wrong("holds no token on one line".to_owned(), false));
                }
                Ok(Self::Bearer(SecretString::from(token)))
            }
        }
    }
}

/// Asks one source.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    credential: Credential,
    home: Url,
    patience: Patience,
}

impl Client {
    /// One that shows `credential` to the origin of `home` alone.
    pub(super) fn new(home: &Url, credential: Credential, patience: Patience) -> Result<Self, FetchError> {
        // reqwest takes the token off where a redirect leads to another host.
        let follow = redirect::Policy::custom(|attempt| {
            let from_https = attempt.previous().iter().any(|url| url.scheme() == "https");
            if attempt.previous().len() > MAX_REDIRECTS {
                attempt.error("too many redirects")
            } else if from_https && attempt.url().scheme() != "https" {
                attempt.error("a redirect from https to http")
            } else {
                attempt.follow()
            }
        });
        let http = reqwest::Client::builder()
            .connect_timeout(patience.silence)
            .read_timeout(patience.silence)
            .user_agent(concat!("controller-stub/", env!("CARGO_PKG_VERSION")))
            .redirect(follow)
            .build()
            .map_err(FetchError::Client)?;
        Ok(Self { http, credential, home: home.clone(), patience })
    }

    /// A small answer in whole, with its headers.
    pub(super) async fn small(
        &self,
        url: &Url,
        accept: &str,
        limit: u64,
    ) -> Result<(header::HeaderMap, Vec<u8>), FetchError> {
        let read = async {
            let mut response = self.get(url, accept, 0).await?;
            bounded(&response, url, limit)?;
            let headers = response.headers().clone();
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(transport(url))? {
                if (bytes.len() + chunk.len()) as u64 > limit {
                    return Err(FetchError::TooLarge { url: shown(url), limit });
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok((headers, bytes))
        };
        tokio::time::timeout(self.patience.small, read).await.unwrap_or_else(|elapsed| {
            Err(FetchError::Transport { url: shown(url), source: Box::new(elapsed) })
        })
    }

    /// `small`, and again where it may succeed then.
    pub(super) async fn small_patiently(&self, url: &Url, limit: u64) -> Result<Vec<u8>, FetchError> {
        let mut attempt = 1;
        loop {
            match self.small(url, BYTES, limit).await {
                Err(error) if error.is_transient() && attempt < ATTEMPTS => attempt += 1,
                done => return done.map(|(_, bytes)| bytes),
            }
            self.pause().await;
        }
    }

    pub(super) async fn pause(&self) {
        tokio::time::sleep(self.patience.pause).await;
    }

    /// Writes the file of `size` bytes at `url` to `path`, after what lies there of it.
    pub(super) async fn file(&self, url: &Url, path: &Path, size: u64) -> Result<(), FetchError> {
        let mut failures = 0;
        loop {
            let before = length(path)?;
            let result = self.rest(url, path, before, size).await;
            match result {
                Err(error) if error.is_transient() => {
                    failures = if length(path)? > before { 1 } else { failures + 1 };
                    if failures >= ATTEMPTS {
                        return Err(error);
                    }
                    tracing::debug!(
                        url = shown(url),
                        error = &error as &dyn std::error::Error,
                        "a download broke off"
                    );
                }
                done => return done,
            }
            self.pause().await;
        }
    }

    async fn rest(&self, url: &Url, path: &Path, have: u64, size: u64) -> Result<(), FetchError> {
        if have == size && have > 0 {
            return Ok(());
        }
        let from = if have < size { have } else { 0 };
        let mut response = self.get(url, BYTES, from).await?;
        // Whoever does not understand ranges sends the whole.
        let resumed = response.status() == StatusCode::PARTIAL_CONTENT && begins_at(&response, from);
        let mut total = if resumed { from } else { 0 };
        bounded(&response, url, size - total)?;
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .write(true)
            .append(resumed)
            .truncate(!resumed)
            .open(path)
            .map_err(io("write", path))?;
        while let Some(chunk) = response.chunk().await.map_err(transport(url))? {
            total += chunk.len() as u64;
            if total > size {
                return Err(FetchError::TooLarge { url: shown(url), limit: size });
            }
            file.write_all(&chunk).map_err(io("write", path))?;
        }
        if total < size {
            return Err(FetchError::Truncated { url: shown(url), size: total, expected: size });
        }
        Ok(())
    }

    async fn get(&self, url: &Url, accept: &str, from: u64) -> Result<Response, FetchError> {
        let mut request = self.http.get(url.clone()).header(header::ACCEPT, accept);
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        if url.origin() == self.home.origin() {
            match &self.credential {
                Credential::Nobody => {}
                Credential::Bearer(token) => request = request.bearer_auth(token.expose_secret()),
                Credential::Bucket { key, region } => {
                    for (name, value) in key.headers(url, region, clock::now()) {
                        request = request.header(name, value);
                    }
                }
            }
        }
        let response = request.send().await.map_err(transport(url))?;
        classify(&response, url, clock::now()).map_or(Ok(response), Err)
    }
}

/// What releases' files are asked for as; GitHub describes them otherwise.
const BYTES: &str = "application/octet-stream";

/// The error that a status is, if any.
fn classify(response: &Response, url: &Url, now: Timestamp) -> Option<FetchError> {
    let status = response.status();
    if status.is_success() {
        return None;
    }
    let (url, code) = (shown(url), status.as_u16());
    let retry_after = wait(response.headers(), now);
    Some(match status {
        StatusCode::TOO_MANY_REQUESTS => FetchError::Limited { url, status: code, retry_after },
        // GitHub says so when too much was asked for.
        StatusCode::FORBIDDEN if retry_after.is_some() => {
            FetchError::Limited { url, status: code, retry_after }
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => FetchError::Refused { url, status: code },
        StatusCode::NOT_FOUND | StatusCode::GONE => FetchError::Absent(url),
        _ => FetchError::Status { url, status: code },
    })
}

/// Longest time that a source is left alone because it says so.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// `Retry-After`, or GitHub's word for it where nothing is left of a quota.
fn wait(headers: &header::HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let until = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000)).since(now);
    let said = text("retry-after").and_then(|value| match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok().and_then(|date| {
            let seconds = date.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
            Some(until(i64::try_from(seconds).ok()?))
        }),
    });
    let spent = || {
        let spent =
            ["x-ratelimit-remaining", "ratelimit-remaining"].iter().any(|name| text(name) == Some("0"));
        let reset = text("x-ratelimit-reset").or(text("ratelimit-reset"));
        spent.then(|| reset.and_then(|it| it.parse().ok()).map_or(Duration::from_secs(60), until))
    };
    said.or_else(spent).map(|wait| wait.min(MAX_WAIT))
}

fn begins_at(response: &Response, from: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

fn bounded(response: &Response, url: &Url, limit: u64) -> Result<(), FetchError> {
    match response.content_length() {
        Some(size) if size > limit => Err(FetchError::TooLarge { url: shown(url), limit }),
        _ => Ok(()),
    }
}

fn length(path: &Path) -> Result<u64, FetchError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(io("read", &PathBuf::from(path))(error)),
    }
}

fn transport(url: &Url) -> impl Fn(reqwest::Error) -> FetchError {
    let url = shown(url);
    // Where a redirect led to may hold a signature.
    move |error| FetchError::Transport { url: url.clone(), source: Box::new(error.without_url()) }
}

/// As it may be logged: a query may hold a signature.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}
