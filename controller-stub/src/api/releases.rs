//! `GET /releases/{version}/{file}`: the files of the releases folder, to whoever asks; what they are worth stands in the plan.

use std::sync::Arc;

use aio_protocol::{error_code::ErrorCode, release::ReleaseVersion};
use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tower_http::services::ServeFile;

use super::error::Rejection;
use crate::{
    app::App,
    releases::{ReleaseFile, SIGNATURE_SUFFIX},
};

pub(super) async fn download(
    State(app): State<Arc<App>>,
    Path((version, name)): Path<(String, String)>,
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
