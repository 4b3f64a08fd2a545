//! A page that was rendered, or is refused: with the API's status, code and headers, and the cure in words.

use askama::Template;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};

use super::{
    frame::{Frame, Tab},
    scene::Scene,
};
use crate::api::error::Rejection;

impl Scene {
    pub(super) fn refuse(&self, rejection: Rejection) -> Response {
        Refusal::new(self.clone(), rejection).into_response()
    }

    /// A page that was rendered.
    pub(super) fn page(&self, page: &impl Template) -> Response {
        match page.render() {
            Ok(text) => Html(text).into_response(),
            Err(error) => self.refuse(Rejection::fault(&error)),
        }
    }
}

/// A page that is refused.
pub(super) struct Refusal {
    scene: Scene,
    rejection: Rejection,
}

impl Refusal {
    pub(super) fn new(scene: Scene, rejection: Rejection) -> Self {
        Self { scene, rejection }
    }
}

#[derive(Template)]
#[template(path = "pages/refused.html")]
struct Refused {
    frame: Frame,
    title: &'static str,
    message: String,
    code: &'static str,
    cure: &'static str,
    allowed: String,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { scene, rejection } = self;
        let code = rejection.code();
        let page = Refused {
            title: match rejection.status() {
                StatusCode::NOT_FOUND => "Not there",
                StatusCode::FORBIDDEN => "Not allowed",
                StatusCode::CONFLICT => "Not now",
                status if status.is_server_error() => "The controller failed at this",
                _ => "Not done",
            },
            message: rejection.message().to_owned(),
            code: code.as_str(),
            cure: code.cure(),
            allowed: rejection.allowed().join(", "),
            frame: Frame::new(&scene, Tab::None),
        };
        let mut response = rejection.into_response();
        if let Ok(text) = page.render() {
            *response.body_mut() = text.into();
            let headers = response.headers_mut();
            headers.remove(header::CONTENT_LENGTH);
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        }
        response
    }
}
