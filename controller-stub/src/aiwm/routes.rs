//! Which requests are in AIWM's dialect (pure). Whatever is not stays the own API's.

use axum::http::Method;

/// What answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Rest,
    Sockets,
    /// What only tests ask for.
    Double,
}

impl Route {
    /// What of the dialect answers this; `None` for the own API.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        let segments: Vec<_> = path.trim_matches('/').split('/').collect();
        let get = matches!(*method, Method::GET | Method::HEAD);
        let post = *method == Method::POST;
        let taken = match segments.as_slice() {
            ["socket.io"] => return Some(Self::Sockets),
            ["_double", "faults" | "recording"] => return Some(Self::Double),
            ["nodes"] => get || post,
            ["nodes", "auth", "bootstrap" | "login" | "refresh"] => post,
            ["nodes", _] => get || *method == Method::DELETE,
            ["nodes", _, "approve" | "setup-guide" | "regenerate-credentials" | "maintenance"] => post,
            ["metrics", "push", "node"] => post,
            ["health" | "api-docs-json"] => get,
            _ => false,
        };
        taken.then_some(Self::Rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_have_is_the_dialects_and_what_only_the_own_api_has_stays_its_own() {
        for (method, path, route) in [
            (Method::GET, "/nodes", Some(Route::Rest)),
            (Method::DELETE, "/nodes/1", Some(Route::Rest)),
            (Method::PATCH, "/nodes/1", None),
            (Method::POST, "/nodes/1/token", None),
            (Method::POST, "/nodes/1/resume", None),
            (Method::GET, "/nodes/1/transitions", None),
            (Method::GET, "/metrics", None),
            (Method::GET, "/ws/node", None),
            (Method::GET, "/healthz", None),
            (Method::HEAD, "/health", Some(Route::Rest)),
            (Method::GET, "/socket.io/", Some(Route::Sockets)),
            (Method::POST, "/socket.io", Some(Route::Sockets)),
        ] {
            assert_eq!(Route::of(&method, path), route, "{method} {path}");
        }
    }
}
