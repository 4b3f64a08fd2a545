//! A page's place: where it is below `/`, for whom it is, and the way from it to others. Addresses are
//! relative, so that the pages work below whatever a proxy puts before them.

use aio_protocol::claims::UserClaims;
use axum::{
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

use super::words;

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
            // No address that is made here holds what a header may not.
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }

    /// The form to sign in with, which leads back here.
    pub(super) fn to_sign_in(&self) -> Response {
        if self.here.is_empty() {
            return self.see_other("ui/login");
        }
        self.see_other(&format!("ui/login?next={}", words::escaped(&self.here)))
    }
}

/// Whether `page` is an address below `/` of one of our pages, and nothing else.
pub(super) fn is_own_page(page: &str) -> bool {
    let path = page.split('?').next().unwrap_or_default();
    let plain = page.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.~?=&%+*,".contains(&b));
    plain && !page.contains("//") && !path.contains("..") && (path.is_empty() || path.starts_with("ui/"))
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
