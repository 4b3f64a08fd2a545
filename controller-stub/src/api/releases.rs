//! `GET /releases/{version}/{file}` and `GET /releases/index.json`: the files of the releases folder, to
//! whoever asks; what they are worth, the plan and the signatures say.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use aio_protocol::{
    api::ApiError,
    error_code::ErrorCode,
    release::{
        ReleaseVersion,
        folder::{SIGNATURE_SUFFIX, is_file_name},
        index::INDEX,
    },
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use super::{client::ClientAddress, error::Rejection, path::InPath};
use crate::{
    app::App,
    listener::holder::{Holder, site},
    releases::serving::{CHUNK, Part},
};

/// Whoever finds no room comes back within this time, in seconds, and not all at once: an installer
/// tries four times.
const PAUSES: std::ops::Range<u64> = 4..30;

/// Download a release file
///
/// `linux-amd64`, `aio-installer-linux-amd64`, each with `.minisig`, and what `manifest.json` of the version
/// lists beside, that and `SHA256SUMS` included.
#[utoipa::path(get, path = "/releases/{version}/{file}", operation_id = "downloadRelease", tag = "installation",
    params(("version" = String, Path, description = "e.g. `v1.0.0`"), ("file" = String, Path, description = "e.g. `linux-amd64`")),
    responses(
        (status = 200, description = "The file", content_type = "application/octet-stream"),
        (status = 206, description = "The part that `Range` asked for; of several ranges, the whole file comes with 200", content_type = "application/octet-stream"),
        (status = 304, description = "It is what `If-None-Match` names, or as it was at `If-Modified-Since`"),
        (status = 412, description = "It is not what `If-Match` names, or has changed since `If-Unmodified-Since`"),
        (status = 416, description = "The file has no such range"),
        (status = 503, description = "RATE_LIMITED: as many downloads run as are served at once; with Retry-After", body = ApiError),
        (status = 404, description = "RELEASE_NOT_FOUND: there is no such file", body = ApiError)))]
pub(super) async fn download(
    State(app): State<Arc<App>>,
    ClientAddress(address): ClientAddress,
    InPath((version, name)): InPath<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Rejection> {
    let absent = || {
        let message = format!("there is no release file {version}/{name}");
        Rejection::new(StatusCode::NOT_FOUND, ErrorCode::ReleaseNotFound, message)
    };
    // Only names of this form reach the file system, so no path leads out of the folder.
    let parsed: ReleaseVersion = version.parse().map_err(|_| absent())?;
    let releases = &app.enroller.releases;
    if !is_file_name(&name) || !releases.lists(&parsed, &name).await.map_err(Rejection::unreadable)? {
        return Err(absent());
    }
    let served = releases.served(&parsed, &name).await.map_err(Rejection::unreadable)?;
    let served = served.ok_or_else(absent)?;
    let common = [
        (header::ETAG, served.etag()),
        (header::LAST_MODIFIED, httpdate::fmt_http_date(served.modified())),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ];
    let size = served.size();
    let (status, from, to) = match served.asked(&headers, SystemTime::now()) {
        Part::Whole => (StatusCode::OK, 0, size),
        Part::Range(from, to) => (StatusCode::PARTIAL_CONTENT, from, to),
        Part::NotModified => return Ok((StatusCode::NOT_MODIFIED, common).into_response()),
        Part::Changed => return Ok((StatusCode::PRECONDITION_FAILED, common).into_response()),
        Part::NoSuchRange => {
            let range = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, range).into_response());
        }
    };
    let mut response = (status, common).into_response();
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(to - from));
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {from}-{}/{size}", to - 1);
        fields.insert(header::CONTENT_RANGE, HeaderValue::try_from(range).map_err(Rejection::unreadable)?);
    }
    if method == Method::HEAD {
        return Ok(response);
    }
    let holder = Holder::Site(site(address));
    let room = app.downloads.begin(holder.clone(), Instant::now()).zip(app.answers.charge(holder, 2 * CHUNK));
    let (place, charge) = room.ok_or_else(|| {
        let message = "as many downloads run as the controller serves at once";
        Rejection::later(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::RateLimited,
            message,
            Duration::from_secs(fastrand::u64(PAUSES)),
        )
    })?;
    response.extensions_mut().insert(Arc::new(charge));
    *response.body_mut() = Body::new(served.body(from, to, place));
    Ok(response)
}

/// Download the index of releases
///
/// What holds of all releases together, signed (`index.json.minisig`): which there are, which are too old,
/// and which keys are believed. The two files are replaced one after the other: who gets a pair that does not
/// verify asks again.
#[utoipa::path(get, path = "/releases/index.json", operation_id = "downloadReleaseIndex", tag = "installation", responses(
    (status = 200, description = "The index; never kept by a cache without asking", content_type = "application/json"),
    (status = 304, description = "It is what `If-None-Match` names"),
    (status = 404, description = "RELEASE_NOT_FOUND: there is no index", body = ApiError)))]
pub(super) async fn index(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Rejection> {
    beside(&app, INDEX.to_owned(), "application/json", &headers).await
}

/// Download the signature of the index of releases
///
/// As minisign writes it; its trusted comment names the serial.
#[utoipa::path(get, path = "/releases/index.json.minisig", operation_id = "downloadReleaseIndexSignature", tag = "installation", responses(
    (status = 200, description = "The signature; never kept by a cache without asking", content_type = "text/plain"),
    (status = 304, description = "It is what `If-None-Match` names"),
    (status = 404, description = "RELEASE_NOT_FOUND: there is none", body = ApiError)))]
pub(super) async fn index_signature(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, Rejection> {
    beside(&app, format!("{INDEX}{SIGNATURE_SUFFIX}"), "text/plain", &headers).await
}

/// A small file beside the versions, whole.
async fn beside(
    app: &App,
    name: String,
    kind: &'static str,
    headers: &HeaderMap,
) -> Result<Response, Rejection> {
    let found = app.enroller.releases.beside(&name).await.map_err(Rejection::unreadable)?;
    let bytes = found.ok_or_else(|| {
        let message = format!("there is no {name}");
        Rejection::new(StatusCode::NOT_FOUND, ErrorCode::ReleaseNotFound, message)
    })?;
    let etag = format!("\"{}\"", hex::encode(Sha256::digest(&bytes)));
    let common = [(header::ETAG, etag.clone()), (header::CACHE_CONTROL, "no-cache".to_owned())];
    let known =
        headers.get_all(header::IF_NONE_MATCH).iter().any(|known| known.as_bytes() == etag.as_bytes());
    if known {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    Ok((common, [(header::CONTENT_TYPE, kind)], bytes).into_response())
}
