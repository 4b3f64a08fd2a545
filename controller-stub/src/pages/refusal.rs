//! A page in its place: where it is below `/`, for whom it is, and how it is refused.

use std::sync::Arc;

use aio_protocol::{claims::UserClaims, error_code::ErrorCode};
use askama::Template;
use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, Uri, header},
    response::{Html, IntoResponse, Response},
};

use super::{
    Pages,
    frame::{Frame, Tab},
    session::Visitor,
    words,
};
use crate::api::error::Rejection;

/// Where a page is, and for whom.
#[derive(Clone)]
pub(super) struct Scene {
    /// The way up to `/`, e.g. `../`. Links go by it, so that the pages work below whatever a proxy puts
    /// before them.
    pub root: String,
    /// The page's own address below `/`, with its query.
    pub here: String,
    /// Who is signed in, and the token of their forms.
    pub person: Option<(UserClaims, String)>,
    /// What has just been done.
    pub notice: Option<String>,
}

impl Scene {
    pub(super) fn of(uri: &Uri) -> Self {
        let depth = uri.path().matches('/').count().saturating_sub(1);
        let query = uri.query().unwrap_or_default();
        let (mut kept, mut notice) = (Vec::new(), None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.strip_prefix("done=") {
                Some(text) => notice = Some(words::unescaped(text)),
                None => kept.push(pair),
            }
        }
        let path = uri.path().trim_start_matches('/');
        let here = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
        let root = if depth == 0 { "./".to_owned() } else { "../".repeat(depth) };
        Self { root, here, person: None, notice }
    }

    pub(super) fn form_token(&self) -> &str {
        self.person.as_ref().map_or("", |(_, form)| form)
    }

    /// Another page of ours, by its address below `/`.
    pub(super) fn see_other(&self, page: &str) -> Response {
        match HeaderValue::try_from(format!("{}{page}", self.root)) {
            Ok(location) => (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(),
            Err(error) => self.refuse(Rejection::fault(&error)),
        }
    }

    /// The form to sign in with, which leads back here.
    pub(super) fn to_sign_in(&self) -> Response {
        if self.here.is_empty() {
            return self.see_other("ui/login");
        }
        self.see_other(&format!("ui/login?next={}", words::escaped(&self.here)))
    }

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

/// Whether `page` is an address below `/` of one of our pages, and nothing else.
pub(super) fn is_own_page(page: &str) -> bool {
    let path = page.split('?').next().unwrap_or_default();
    let plain = page.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.~?=&%+*,".contains(&b));
    plain && !page.contains("//") && !path.contains("..") && (path.is_empty() || path.starts_with("ui/"))
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

pub(super) async fn not_found(State(_): State<Arc<Pages>>, visitor: Visitor) -> Response {
    let message = "there is no such page".to_owned();
    visitor.scene.refuse(Rejection::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, message))
}

pub(super) async fn method_not_allowed(visitor: Visitor) -> Response {
    let message = "this page takes no such request".to_owned();
    visitor.scene.refuse(Rejection::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::MethodNotAllowed, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_after_the_sign_in_is_one_of_ours() {
        for page in ["", "ui/nodes", "ui/nodes?status=online&q=gpu*", "ui/nodes/69396100cd71623c7bbfbfee"] {
            assert!(is_own_page(page), "{page}");
        }
        for page in [
            "//evil.example",
            "https://evil.example",
            "ui//evil",
            "ui/../releases",
            "nodes",
            "\\evil",
            "ui/a:b",
            "/ui",
        ] {
            assert!(!is_own_page(page), "{page}");
        }
    }

    #[test]
    fn a_page_knows_its_way_up_and_what_was_done() {
        let scene = Scene::of(&"/ui/nodes/x?q=a&done=It+is%20done".parse().unwrap());
        assert_eq!((scene.root.as_str(), scene.here.as_str()), ("../../", "ui/nodes/x?q=a"));
        assert_eq!(scene.notice.as_deref(), Some("It is done"));
        assert_eq!(Scene::of(&"/".parse().unwrap()).root, "./");
    }
}
