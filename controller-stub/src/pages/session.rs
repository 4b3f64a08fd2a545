//! Who looks at a page: a cookie holds a user's token, and the database says that the session goes on. So it
//! ends with the token, with the key that signed it, when somebody signs out, and on every controller at
//! once.
//!
//! A form is believed if the browser says that a page of ours sent it, and if it holds the session's own
//! token, which no other page can read.

use std::{collections::HashMap, sync::Arc};

use aio_protocol::{claims::UserClaims, error_code::ErrorCode};
use axum::{
    Form,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Pages, api::Api, refusal::Refusal, scene::Scene, words};
use crate::{
    api::{
        auth::{self, Person},
        error::Rejection,
        roles::{self, Permission},
    },
    app::App,
    store::Session,
    tokens::fingerprint,
};

/// A browser sends a cookie of this name back over TLS alone, and takes none from another host.
const SECURE_NAME: &str = "__Host-aio-session";

const PLAIN_NAME: &str = "aio-session";

/// Says that a script asks for a page to renew what is shown.
const FRAGMENT: &str = "x-aio-fragment";

/// Somebody who is signed in, and the page that they ask for.
pub(super) struct Visitor {
    pub pages: Arc<Pages>,
    pub person: Person,
    pub session: Session,
    pub api: Api,
    pub scene: Scene,
}

/// A form that a signed-in user has sent from a page of ours.
pub(super) struct Posted {
    pub visitor: Visitor,
    pub fields: Fields,
}

/// A form's fields; each name counts once.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Fields(HashMap<String, String>);

impl Fields {
    /// A field without white space around it; empty when it is not there.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |text| text.trim())
    }

    /// A field that says something.
    pub(super) fn some(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }
}

impl Visitor {
    pub(super) fn user(&self) -> &UserClaims {
        &self.person.user
    }

    pub(super) fn may(&self, permission: Permission) -> bool {
        roles::allow(&self.person.user.roles, permission)
    }

    pub(super) fn app(&self) -> &App {
        &self.pages.app
    }

    /// Another address of the pages, with a sentence that it shows.
    pub(super) fn go_to(&self, page: &str, notice: &str) -> Response {
        let page = if notice.is_empty() {
            page.to_owned()
        } else {
            let joint = if page.contains('?') { '&' } else { '?' };
            format!("{page}{joint}done={}", words::escaped(notice))
        };
        self.scene.see_other(&page)
    }
}

/// The token by which a session's own forms are known.
pub(super) fn form_token(cookie: &str) -> String {
    hex::encode(Sha256::digest(format!("form of {cookie}")))
}

/// A cookie's value: chance, and the user's token.
pub(super) fn cookie_value(secret: &str, token: &str) -> String {
    format!("{secret}.{token}")
}

pub(super) fn is_tls(app: &App) -> bool {
    app.enroller.deployment.api.starts_with("https://")
}

/// The header that keeps `value` in the browser until it ends, or takes the cookie away.
pub(super) fn set_cookie(app: &App, value: Option<(&str, i64)>) -> Option<HeaderValue> {
    set_cookie_text(is_tls(app), value).parse().ok()
}

fn set_cookie_text(tls: bool, value: Option<(&str, i64)>) -> String {
    let (name, secure) = if tls { (SECURE_NAME, "; Secure") } else { (PLAIN_NAME, "") };
    let (value, seconds) = value.unwrap_or(("", 0));
    format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

/// The cookies of a request, by name.
pub(super) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

/// The cookie of a name, if there is exactly one.
pub(super) fn cookie_of<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let mut found = cookies(headers).filter(|(name, value)| *name == wanted && !value.is_empty());
    let (_, value) = found.next()?;
    found.next().is_none().then_some(value)
}

fn cookie(headers: &HeaderMap, tls: bool) -> Option<&str> {
    cookie_of(headers, if tls { SECURE_NAME } else { PLAIN_NAME })
}

/// Who is signed in by this request's cookie; nothing without one.
async fn session_of(parts: &Parts, app: &App) -> Result<Option<(Session, Person, String)>, Rejection> {
    let Some(cookie) = cookie(&parts.headers, is_tls(app)) else { return Ok(None) };
    let Some((_, token)) = cookie.split_once('.') else { return Ok(None) };
    // A cookie that has ended is no attempt to guess one: the user signs in again.
    let Ok(person) = auth::person_of(token, parts, app) else { return Ok(None) };
    let Some(session) = app.store.session(&fingerprint(cookie)).await? else { return Ok(None) };
    if !roles::allow(&person.user.roles, Permission::See) {
        return Ok(None);
    }
    Ok(Some((session, person, form_token(cookie))))
}

/// Whether a session goes on.
pub(super) async fn goes_on(app: &App, session: &Session) -> bool {
    session.expires_at > crate::clock::now() && !matches!(app.store.session(&session.id).await, Ok(None))
}

impl FromRequestParts<Arc<Pages>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, pages: &Arc<Pages>) -> Result<Self, Response> {
        let mut scene = Scene::of(&parts.uri);
        let found = match session_of(parts, &pages.app).await {
            Ok(found) => found,
            Err(rejection) => return Err(Refusal::new(scene, rejection).into_response()),
        };
        let Some((session, person, form)) = found else {
            if let Err(rejection) = auth::count_stranger(parts, &pages.app) {
                return Err(Refusal::new(scene, rejection).into_response());
            }
            // A script that renews a page must not mistake the form for it.
            return Err(
                match parts.headers.contains_key(FRAGMENT) || parts.headers.contains_key(header::UPGRADE) {
                    true => (StatusCode::UNAUTHORIZED, "the session has ended").into_response(),
                    false => scene.to_sign_in(),
                },
            );
        };
        scene.person = Some((person.user.clone(), form));
        let api = Api::new(pages.api.clone(), person.user.clone(), parts);
        Ok(Self { pages: pages.clone(), person, session, api, scene })
    }
}

impl FromRequest<Arc<Pages>> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, pages: &Arc<Pages>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        if let Err(rejection) = from_own_page(&parts.headers, &pages.app) {
            return Err(Refusal::new(Scene::of(&parts.uri), rejection).into_response());
        }
        let visitor = Visitor::from_request_parts(&mut parts, pages).await?;
        let fields = fields(Request::from_parts(parts, body), &visitor.scene).await?;
        let form = visitor.scene.form_token();
        if form.is_empty() || !crate::noti::signature::same(form, fields.text("form")) {
            let message = "the form is not of this session; open the page again and send it once more";
            return Err(visitor.scene.refuse(Rejection::forbidden(ErrorCode::Forbidden, message)));
        }
        Ok(Self { visitor, fields })
    }
}

/// A form's fields.
pub(super) async fn fields(request: Request, scene: &Scene) -> Result<Fields, Response> {
    match Form::<Fields>::from_request(request, &()).await {
        Ok(Form(fields)) => Ok(fields),
        Err(error) => Err(scene.refuse(Rejection::field(format!("the form: {}", error.body_text())))),
    }
}

/// Refuses what another site's page has sent: the browser says whose page it was.
pub(super) fn from_own_page(headers: &HeaderMap, app: &App) -> Result<(), Rejection> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let own = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => site == "same-origin",
        // Browsers leave the first out where the page came without TLS.
        (None, Some(origin)) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            (host.is_some() && host == text("host")) || app.noti.welcomes_page_of(origin)
        }
        (None, None) => false,
    };
    if own {
        return Ok(());
    }
    let message = "forms are taken from this controller's own pages alone";
    Err(Rejection::forbidden(ErrorCode::Forbidden, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_tls_a_cookie_is_one_that_no_other_host_can_set() {
        let cookie = set_cookie_text(true, Some(("secret.token", 60)));
        assert_eq!(
            cookie,
            "__Host-aio-session=secret.token; Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure"
        );
        assert!(set_cookie_text(false, None).starts_with("aio-session=; Path=/; Max-Age=0; HttpOnly"));
    }

    #[test]
    fn of_two_cookies_none_counts_and_a_plain_one_is_none_over_tls() {
        let headers = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, line.parse().unwrap());
            }
            headers
        };
        let one = headers(&["a=b; aio-session=x.y", "c=d"]);
        assert_eq!((cookie(&one, false), cookie(&one, true)), (Some("x.y"), None));
        for lines in [
            &["aio-session=x.y; aio-session=z.y"][..],
            &["aio-session=x.y", "aio-session=z.y"],
            &["aio-session="],
        ] {
            assert_eq!(cookie(&headers(lines), false), None, "{lines:?}");
        }
    }
}
