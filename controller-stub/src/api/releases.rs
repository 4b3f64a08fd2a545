//! `GET /releases/{version}/{file}`: the files of the releases folder, to whoever asks; what they are worth stands in the plan.

use std::sync::Arc;

use aio_protocol::{api::ApiError, error_code::ErrorCode, release::ReleaseVersion};
use axum::{
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tower_http::services::ServeFile;

use super::{error::Rejection, path::InPath};
use crate::{
    app::App,
    releases::{ReleaseFile, SIGNATURE_SUFFIX},
};

/// Download a release file
///
/// `linux-amd64`, `aio-installer-linux-amd64`, and each with `.minisig`.
#[utoipa::path(get, path = "/releases/{version}/{file}", operation_id = "downloadRelease", tag = "installation",
    params(("version" = String, Path, description = "e.g. `v1.0.0`"), ("file" = String, Path, description = "e.g. `linux-amd64`")),
    responses(
        (status = 200, description = "The file", content_type = "application/octet-stream"),
        (status = 206, description = "The part that `Range` asked for", content_type = "application/octet-stream"),
        (status = 304, description = "It is as it was at `If-Modified-Since`"),
        (status = 412, description = "It has changed since `If-Unmodified-Since`"),
        (status = 416, description = "The file has no such range"),
        (status = 404, description = "RELEASE_NOT_FOUND: there is no such file", body = ApiError)))]
pub(super) async fn download(
    State(app): State<Arc<App>>,
    InPath((version, name)): InPath<(String, String)>,
    request: Request,
) -> Result<Response, Rejection> {
    let absent = || {
        let message = format!("there is no release file {version}/{name}");
        Rejection::new(StatusCode::NOT_FOUND, ErrorCode::ReleaseNotFound, message)
    };
    // Only names of this form reach the file system, so no path leads out of the folder.
    let parsed: ReleaseVersion = version.parse().map_err(|_| absent())?;
    let file: ReleaseFile =
        name.strip_suffix(SIGNATURE_SUFFIX).unwrap_or(&name).parse().map_err(|_| absent())?;
    let suffix = if name.ends_with(SIGNATURE_SUFFIX) { SIGNATURE_SUFFIX } else { "" };
    let path = app.enroller.releases.path(&parsed, &format!("{file}{suffix}")).ok_or_else(absent)?;
    match ServeFile::new(path).try_call(request).await {
        Ok(response) if response.status() == StatusCode::NOT_FOUND => Err(absent()),
        Ok(response) => Ok(response.map(Body::new).into_response()),
        Err(error) => {
            tracing::error!(version, name, %error, "a release file cannot be read");
            let message = format!("the release file {version}/{name} cannot be read");
            Err(Rejection::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::ControllerError, message))
        }
    }
}
