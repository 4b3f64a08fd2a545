//! What holds for every request and every answer, whatever the address: one `Host`, a budget for the bytes
//! that are on their way, and a line in the log for what failed.

use std::sync::Arc;

use axum::{
    body::HttpBody,
    extract::{MatchedPath, Request, State},
    http::{Method, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    client,
    error::{Reason, Rejection},
};
use crate::{
    app::App,
    failures::Failures,
    listener::{
        InFlight,
        budget::Charge,
        holder::{Holder, site},
    },
};

pub(super) async fn pass(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if let Err(refusal) = one_host(&request) {
        return refusal.into_response();
    }
    let in_flight = request.extensions().get::<Arc<InFlight>>().cloned();
    let (parts, body) = request.into_parts();
    let stranger = Holder::Site(site(client::address(&parts, &app.trusted_proxies)));
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let route = parts.extensions.get::<MatchedPath>().cloned();
    let response = next.run(Request::from_parts(parts, body)).await;
    let response = charged(&app, in_flight.as_deref(), stranger, response);
    note(&app.failures, method, route.as_ref().map_or("", MatchedPath::as_str), &path, &response);
    response
}

/// HTTP/1.1 asks for exactly one `Host`. With two, a proxy before us may have read the other.
fn one_host(request: &Request) -> Result<(), Rejection> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() || (host.is_none() && request.version() == Version::HTTP_11) {
        return Err(Rejection::field("Host must be there once"));
    }
    // Empty is what a client says that asks for no host.
    let good = host.is_none_or(|host| {
        host.is_empty() || host.to_str().is_ok_and(|it| !it.contains('@') && it.parse::<Authority>().is_ok())
    });
    if good { Ok(()) } else { Err(Rejection::field("Host is no host and port")) }
}

/// Answers up to this size, in bytes, are not worth an account: refusals, and what a watchdog asks.
const SMALL: u64 = 1024;

/// Charges the answer to whoever gets it; what brought a charge of its own keeps that.
fn charged(app: &App, in_flight: Option<&InFlight>, stranger: Holder, mut response: Response) -> Response {
    let hint = response.body().size_hint();
    let size = hint.upper().unwrap_or(hint.lower());
    if size <= SMALL || response.extensions().get::<Arc<Charge>>().is_some() {
        return response;
    }
    let payer = in_flight.and_then(InFlight::payer).unwrap_or(stranger);
    match app.answers.charge(payer, size) {
        Some(charge) => {
            response.extensions_mut().insert(Arc::new(charge));
            response
        }
        None => Rejection::unread().into_response(),
    }
}

/// Logs the first failure of a route, every doubling, and the recovery.
fn note(failures: &Failures, method: Method, route: &str, path: &str, response: &Response) {
    let status = response.status();
    let failed = status.is_server_error();
    let Some(count) = failures.count(method.clone(), route, failed) else { return };
    let Reason { fault, text } = response.extensions().get::<Reason>().cloned().unwrap_or_default();
    let status = status.as_u16();
    if !failed {
        tracing::debug!(%method, path, count, "requests are answered again");
    } else if fault {
        tracing::warn!(%method, path, status, reason = text, count, "a request failed");
    } else {
        tracing::debug!(%method, path, status, reason = text, count, "a request was turned away");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, hosts: &[&str]) -> Request {
        let mut request = axum::http::Request::builder().version(version);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        request.body(axum::body::Body::empty()).unwrap()
    }

    #[test]
    fn a_request_has_one_host() {
        let allowed = |version, hosts: &[&str]| one_host(&request(version, hosts)).is_ok();
        for host in ["aiwm.example", "aiwm.example:3305", "[::1]:3305", "127.0.0.1", ""] {
            assert!(allowed(Version::HTTP_11, &[host]), "{host}");
        }
        for hosts in [&[][..], &["a", "a"], &["a", "b"], &["a b"], &["user@a"], &["a/b"]] {
            assert!(!allowed(Version::HTTP_11, hosts), "{hosts:?}");
        }
        assert!(allowed(Version::HTTP_10, &[]) && allowed(Version::HTTP_2, &[]));
        assert!(!allowed(Version::HTTP_10, &["a", "b"]));
    }
}
