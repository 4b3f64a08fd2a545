//! What stands around every page: its head, the bar, and what a browser is told of it.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};

use super::{assets, scene::Scene};
use crate::api::roles::{self, Permission};

/// Nothing comes from elsewhere, nothing stands inline, nobody frames a page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; base-uri 'self'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    // Of a form's sender the browser tells the origin alone, and that to us alone.
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Shorter answers are sent as they are.
const MIN_PACKED_BYTES: usize = 1024;

/// Which entry of the bar a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    None,
    Overview,
    Nodes,
    Alarms,
    Updates,
    Events,
    Delivery,
    Audit,
    Access,
}

/// An entry of the bar.
pub(super) struct Entry {
    pub name: &'static str,
    pub page: &'static str,
    pub current: bool,
}

/// What every page's template has.
pub(super) struct Frame {
    pub root: String,
    pub here: String,
    pub style: String,
    pub script: String,
    pub icon: String,
    /// Nobody is signed in where there are none.
    pub entries: Vec<Entry>,
    pub user: String,
    pub org: String,
    pub role: String,
    /// The token of this session's forms.
    pub form: String,
    pub manages: bool,
    pub operates: bool,
    pub notice: Option<String>,
}

impl Frame {
    pub(super) fn new(scene: &Scene, tab: Tab) -> Self {
        let (user, form) = match &scene.person {
            Some((user, form)) => (Some(user), form.clone()),
            None => (None, String::new()),
        };
        let may = |permission| user.is_some_and(|user| roles::allow(&user.roles, permission));
        let all = [
            ("Overview", "", Tab::Overview),
            ("Nodes", "ui/nodes", Tab::Nodes),
            ("Alarms", "ui/alarms", Tab::Alarms),
            ("Updates", "ui/updates", Tab::Updates),
            ("Events", "ui/events", Tab::Events),
            ("Delivery", "ui/delivery", Tab::Delivery),
            ("Audit", "ui/audit", Tab::Audit),
            ("Access", "ui/access", Tab::Access),
        ];
        let shown = all.into_iter().filter(|(.., it)| *it != Tab::Audit || may(Permission::Manage));
        let entries = shown.map(|(name, page, it)| Entry { name, page, current: it == tab });
        Self {
            root: scene.root.clone(),
            here: scene.here.clone(),
            style: assets::STYLE.path(),
            script: assets::SCRIPT.path(),
            icon: assets::ICON.path(),
            entries: if user.is_some() { entries.collect() } else { Vec::new() },
            user: user.map_or_else(String::new, |user| user.sub.to_string()),
            org: user.map_or_else(String::new, |user| user.org_id.to_string()),
            role: user.map_or_else(String::new, |user| user.roles.join(", ")),
            manages: may(Permission::Manage),
            operates: may(Permission::Operate),
            form,
            notice: scene.notice.clone(),
        }
    }
}

/// Adds what every answer of the pages says to browsers, and packs it where that pays.
pub(super) async fn dress(request: Request, next: Next) -> Response {
    let packs = takes_gzip(request.headers());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if packs && response.status().is_success() { packed(response).await } else { response }
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|it| it.split(',').any(|coding| coding.trim() == "gzip"))
}

/// The same answer in gzip. A page shows what others wrote beside the token of its forms; nobody else can
/// have a browser ask for it again and again and measure it, because the cookie goes with requests of our own
/// pages alone.
async fn packed(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return Response::from_parts(parts, Body::empty());
    };
    if bytes.len() < MIN_PACKED_BYTES {
        return Response::from_parts(parts, Body::from(bytes));
    }
    let packed = tokio::task::spawn_blocking(move || (assets::gzip(&bytes), bytes)).await;
    let body = match packed {
        Ok((Some(packed), _)) => {
            parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts.headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            parts.headers.remove(header::CONTENT_LENGTH);
            Body::from(packed)
        }
        Ok((None, bytes)) => Body::from(bytes),
        Err(_) => Body::empty(),
    };
    Response::from_parts(parts, body)
}
