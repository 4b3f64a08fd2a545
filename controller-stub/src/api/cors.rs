//! Which web pages of other origins may call the API: those of `DASHBOARD_ORIGINS`, as for the dashboards'
//! WebSocket. They send a token themselves, so a browser's own credentials are never asked for. What workers,
//! installers and Prometheus call is not for pages.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{
        HeaderValue, Method, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
            VARY,
        },
    },
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::app::App;

const NOT_FOR_PAGES: [&str; 3] = ["/nodes/{id}/installation", "/ws/node", "/metrics"];

/// Those that the API knows beside the ones that need no permission.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");

/// What a page may send beside what every page may.
const SENT: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, range, if-range, if-match, if-none-match",
);

/// What a page may read beside what every page may.
const READ: HeaderValue = HeaderValue::from_static(
    "retry-after, etag, www-authenticate, allow, content-range, idempotency-replayed, x-next-cursor",
);

const MAX_AGE_SECS: HeaderValue = HeaderValue::from_static("600");

pub(super) async fn admit_pages(
    State(app): State<Arc<App>>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    if path.is_some_and(|path| NOT_FOR_PAGES.contains(&path.as_str())) {
        return next.run(request).await;
    }
    let preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let welcome =
        |origin: &&HeaderValue| origin.to_str().is_ok_and(|origin| app.noti.welcomes_page_of(origin));
    let origin = request.headers().get(ORIGIN).filter(welcome).cloned();
    let mut response = next.run(request).await;
    if let Some(origin) = origin {
        // What the router refuses has an address, and its `Allow` says which of the methods it takes.
        if preflight && response.status() == StatusCode::METHOD_NOT_ALLOWED {
            response = StatusCode::NO_CONTENT.into_response();
            let headers = response.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, SENT);
            headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECS);
        }
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        response.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, READ);
    }
    // For every answer: whoever keeps it must not give it to a page of another origin.
    response.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
    response
}
