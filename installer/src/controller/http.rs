//! The one HTTP client of an installation, and what a failed request means. Plain `http` goes to
//! this machine alone unless the operator said otherwise, redirects included; calls to the
//! controller follow no redirect at all, so the token goes nowhere else.

use std::time::{Duration, SystemTime};

use aio_host::{
    proxy::Proxy,
    tls::{self, Trust},
};
use aio_protocol::{
    error_code::ErrorCode,
    retry_after,
    sources::{innermost, with_sources},
    time::Timestamp,
};
use reqwest::{
    Client, ClientBuilder, Response, Url,
    header::{DATE, RETRY_AFTER},
    redirect,
};

use crate::failure::Failure;

/// Maximum size of an answer that is read. A plan has about one KiB.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// How long a connection may take, name resolution and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A transfer in which no byte arrives for this long has stalled.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// More redirects than any release server needs.
const MAX_REDIRECTS: usize = 5;
/// A server that asks for more patience than this is answered with a failure that says so: somebody
/// sits before the terminal.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Builds the client. `controller` is the base of the calls that follow no redirect; `proxy` is one
/// that somebody named, instead of the environment's.
pub(crate) fn client(
    controller: &Url,
    trust: &Trust,
    proxy: Option<&str>,
    insecure_http: bool,
    stall_timeout: Option<Duration>,
) -> Result<Client, Failure> {
    let proxy = proxy.map(reqwest::Proxy::all).transpose().map_err(|error| {
        let message = format!("the proxy cannot be used: {}", with_sources(&error));
        Failure::new(ErrorCode::ConfigInvalid, message)
    })?;
    client_through(controller, trust, proxy, insecure_http, stall_timeout)
}

/// The same, with a proxy that is made already.
pub(crate) fn client_through(
    controller: &Url,
    trust: &Trust,
    proxy: Option<reqwest::Proxy>,
    insecure_http: bool,
    stall_timeout: Option<Duration>,
) -> Result<Client, Failure> {
    let builder = builder_through(controller, trust, proxy, stall_timeout)?;
    made(builder.redirect(redirects(controller.clone(), insecure_http)))
}

/// A client for calls alone, none of which follows a redirect.
pub(crate) fn client_of_calls(
    service: &Url,
    trust: &Trust,
    proxy: Option<reqwest::Proxy>,
) -> Result<Client, Failure> {
    made(builder_through(service, trust, proxy, None)?.redirect(redirect::Policy::none()))
}

fn made(builder: ClientBuilder) -> Result<Client, Failure> {
    builder.build().map_err(|error| Failure::new(ErrorCode::Internal, with_sources(&error)))
}

fn builder_through(
    controller: &Url,
    trust: &Trust,
    proxy: Option<reqwest::Proxy>,
    stall_timeout: Option<Duration>,
) -> Result<ClientBuilder, Failure> {
    let tls = tls::client_config(trust).map_err(Failure::from)?;
    let mut builder = Client::builder()
        .tls_backend_preconfigured((*tls).clone())
        .user_agent(concat!("aio-installer/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(stall_timeout.unwrap_or(STALL_TIMEOUT));
    if is_this_machine(controller) {
        // A proxy would look for the controller on its own machine.
        builder = builder.no_proxy();
    } else if let Some(proxy) = proxy {
        builder = builder.proxy(proxy);
    } else {
        // By the same rules as the daemon. A proxy that cannot be used was refused before.
        builder = builder.proxy(reqwest::Proxy::custom(|url| {
            let target = url.as_str().parse().ok()?;
            aio_host::proxy::url_from_environment(&target).ok()?.map(|(url, _)| url)
        }));
    }
    Ok(builder)
}

/// A proxy that is named, as the client takes it.
pub(crate) fn through(proxy: &Proxy) -> Result<reqwest::Proxy, Failure> {
    let made = reqwest::Proxy::all(proxy.address()).map_err(|error| {
        let message = format!("the proxy cannot be used: {}", with_sources(&error));
        Failure::new(ErrorCode::ConfigInvalid, message)
    })?;
    Ok(match proxy.authorization() {
        Some(login) => made.custom_http_auth(login.clone()),
        None => made,
    })
}

fn redirects(controller: Url, insecure_http: bool) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        let first = attempt.previous().first();
        let is_call =
            first.is_some_and(|url| url.origin() == controller.origin() && url.path().contains("/nodes/"));
        if is_call || attempt.previous().len() > MAX_REDIRECTS {
            attempt.stop()
        } else if let Err(refused) = permit(attempt.url(), insecure_http) {
            attempt.error(refused.message)
        } else {
            attempt.follow()
        }
    })
}

/// Whether the daemon can use this WebSocket endpoint, which came from `source`.
pub(crate) fn check_endpoint(endpoint: &str, source: &str, insecure: bool) -> Result<(), Failure> {
    let Some(rest) = endpoint.strip_prefix("ws") else {
        let message = format!("{source} is `{endpoint}`, which is no ws or wss URL");
        return Err(Failure::new(ErrorCode::ControllerInvalid, message));
    };
    parse(&format!("http{rest}"), source, insecure).map(drop)
}

/// Reads a URL that `source` gave, and refuses one that would cross the network in the clear.
pub(crate) fn parse(text: &str, source: &str, insecure_http: bool) -> Result<Url, Failure> {
    let url: Url = text.parse().map_err(|error| {
        Failure::new(
            ErrorCode::ControllerInvalid,
            format!("{source} is `{text}`, which is not a URL: {error}"),
        )
    })?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        let message = format!("{source} is `{text}`, which is no http or https URL");
        return Err(Failure::new(ErrorCode::ControllerInvalid, message));
    }
    permit(&url, insecure_http)?;
    Ok(url)
}

fn permit(url: &Url, insecure_http: bool) -> Result<(), Failure> {
    if url.scheme() == "https" || insecure_http || is_this_machine(url) {
        Ok(())
    } else {
        let message = format!("{url} is not encrypted, and its host is not this machine");
        Err(Failure::new(ErrorCode::InsecureUrl, message).with("url", url.as_str()))
    }
}

/// Whether the URL's host is this machine by its very name or address.
pub(crate) fn is_this_machine(url: &Url) -> bool {
    url.host_str().is_some_and(aio_host::dial::is_this_machine)
}

/// What time it is where the answer comes from, after its `Date`.
pub(crate) fn their_time(answer: &Response) -> Option<Timestamp> {
    retry_after::date(answer.headers().get(DATE)?.to_str().ok()?)
}

/// How long the server asked to wait; a date is seen from the server's own clock, where it tells the time.
pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let now = their_time(response).unwrap_or_else(|| SystemTime::now().into());
    retry_after::delay(text, now)
}

/// `failure`, when the server wants to be left alone for longer than a command waits.
pub(crate) fn asked_too_much(failure: Failure, asked: Duration) -> Failure {
    let seconds = asked.as_secs();
    let message = format!("{}; it asks to be asked again in {seconds} s, and not before", failure.message);
    Failure { message, ..failure }.with("retryAfterSeconds", seconds)
}

/// Before the try after the `failed`-th: a random part of a span that doubles, or what the server
/// asked for.
pub(crate) fn pause(failed: u32, asked: Option<Duration>) -> Duration {
    asked.unwrap_or_else(|| {
        let span = 400u64.saturating_mul(1 << failed.min(4));
        Duration::from_millis(span / 4 + fastrand::u64(0..=span * 3 / 4))
    })
}

/// Whether it is a proxy that keeps a request from its goal. The tunnel's own error is not public,
/// and its words are all that it has.
pub(crate) fn is_refused_by_proxy(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let words = inner.to_string();
        if words.starts_with("tunnel error: unsuccessful") || words.starts_with("tunnel error: proxy auth") {
            return true;
        }
        source = inner.source();
    }
    false
}

/// Why a request got no answer, without the URL, which the caller names.
pub(crate) fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() && error.is_connect() {
        return format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
    }
    innermost(&error)
}

/// The whole body of an answer; `Err(None)` when it does not end.
pub(crate) async fn read(response: &mut Response) -> Result<Vec<u8>, Option<reqwest::Error>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Some)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_goes_to_this_machine_alone() {
        for url in
            ["http://127.0.0.1:3305", "http://[::1]:3305", "http://localhost/x", "https://aiwm.example"]
        {
            assert!(parse(url, "the token's api", false).is_ok(), "{url}");
        }
        for url in
            ["http://aiwm.example", "http://10.0.0.1", "http://localhost.example", "http://127.0.0.1.example"]
        {
            assert_eq!(
                parse(url, "the token's api", false).unwrap_err().code,
                ErrorCode::InsecureUrl,
                "{url}"
            );
            assert!(parse(url, "the token's api", true).is_ok(), "{url}");
        }
        for url in ["", "aiwm", "ftp://aiwm.example", "file:///etc/passwd"] {
            assert_eq!(
                parse(url, "the token's api", true).unwrap_err().code,
                ErrorCode::ControllerInvalid,
                "{url}"
            );
        }
    }

    #[test]
    fn pauses_grow_and_the_server_decides_when_it_speaks() {
        for failed in 0..10 {
            let pause = pause(failed, None);
            assert!(pause >= Duration::from_millis(100) && pause <= Duration::from_millis(6400), "{pause:?}");
        }
        assert_eq!(pause(1, Some(Duration::from_secs(3))), Duration::from_secs(3));
    }
}
