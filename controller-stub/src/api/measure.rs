//! What requests cost: how many came, by route, method and kind of answer, and how long the answer
//! took to begin.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::Method,
    middleware::Next,
    response::Response,
};
use metrics::{counter, histogram};

pub(super) async fn measure(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    // Whatever else is asked for counts as one, so that nobody makes figures by asking.
    let route = path.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let method = named(request.method());
    let began = Instant::now();
    let response = next.run(request).await;
    let status = class(response.status().as_u16());
    counter!("http_requests_total", "route" => route.clone(), "method" => method, "status" => status)
        .increment(1);
    histogram!("http_request_duration_seconds", "route" => route, "method" => method).record(began.elapsed());
    response
}

fn named(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
