//! Getting in through the identity provider: the way there, and the way back. What the provider says is judged
//! by `crate::oidc`; the session is the same as for a token.
//!
//! The way back begins on another site. So the cookie of a sign-in is `SameSite=Lax`, and the session's, which
//! is `Strict`, is not sent on by a redirect: a page of ours stands between, and leads on by itself.

use std::sync::Arc;

use aio_protocol::error_code::ErrorCode;
use askama::Template;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use secrecy::ExposeSecret;

use super::{
    Pages,
    frame::{Frame, Tab},
    scene::{Scene, is_own_page},
    session::{self, cookie_of, cookies, is_tls},
    sign_in::{self, Cookie},
    words,
};
use crate::{
    api::{auth, error::Rejection},
    app::App,
    clock, commands,
    oidc::{NotSignedIn, Oidc, Returned},
    store::Once,
    tokens::fingerprint,
};

/// The name of a sign-in's cookie begins so, and ends with the beginning of its state: each tab has its own.
const COOKIE: &str = "aio-sign-in-";

/// How much of the state is in the cookie's name.
const STATE_IN_NAME: usize = 8;

/// A browser that has begun so many sign-ins forgets them when it begins another.
const MAX_BEGUN: usize = 5;

/// How long a browser keeps the cookie of a sign-in.
const COOKIE_SECS: u32 = 10 * 60;

#[derive(Template)]
#[template(path = "pages/signed_in.html")]
struct SignedIn {
    frame: Frame,
    /// The page to go to, relative to the pages' root.
    page: String,
}

/// Sends somebody to the identity provider.
pub(super) async fn begin(State(pages): State<Arc<Pages>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let (app, scene) = (&pages.app, Scene::of(&parts.uri));
    let begun = async {
        auth::count_stranger(&parts, app)?;
        let oidc = configured(app)?;
        let tokens = &app.enroller.tokens;
        oidc.begin(tokens, &sign_in::next_of(&parts.uri), clock::now()).await.map_err(rejection)
    };
    let begun = match begun.await {
        Ok(begun) => begun,
        Err(rejection) => return scene.refuse(rejection),
    };
    let Ok(location) = HeaderValue::try_from(begun.ask.as_str()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response();
    let tls = is_tls(app);
    let others: Vec<_> = cookies(&parts.headers).filter(|(name, _)| name.contains(COOKIE)).collect();
    if others.len() >= MAX_BEGUN {
        others.iter().for_each(|(name, _)| add_cookie(&mut response, name, None, tls));
    }
    add_cookie(&mut response, &cookie_name(&begun.state, tls), Some(begun.kept.expose_secret()), tls);
    response
}

/// Signs in whoever comes back from the identity provider.
pub(super) async fn finish(State(pages): State<Arc<Pages>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let (app, scene) = (&pages.app, Scene::of(&parts.uri));
    let state = words::parameter(parts.uri.query(), "state").unwrap_or_default();
    let mut response = match signed_in(app, &parts, &state).await {
        Ok(((value, seconds), next)) => {
            let page = if next.is_empty() { "./".to_owned() } else { next };
            let mut response = scene.page(&SignedIn { frame: Frame::new(&scene, Tab::None), page });
            if let Some(cookie) = session::set_cookie(app, Some((value.expose_secret(), seconds))) {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
            response
        }
        // Nothing has come of the code yet: it is good for another try.
        Err(rejection)
            if [StatusCode::TOO_MANY_REQUESTS, StatusCode::BAD_GATEWAY].contains(&rejection.status()) =>
        {
            return scene.refuse(rejection);
        }
        Err(rejection) => scene.refuse(rejection),
    };
    // It has come back, for good or ill.
    if returned(app, &parts.headers, &state).is_some() {
        add_cookie(&mut response, &cookie_name(&state, is_tls(app)), None, is_tls(app));
    }
    response
}

async fn signed_in(app: &App, parts: &Parts, state: &str) -> Result<(Cookie, String), Rejection> {
    auth::count_stranger(parts, app)?;
    let (oidc, tokens) = (configured(app)?, &app.enroller.tokens);
    let returned = returned(app, &parts.headers, state).ok_or_else(not_begun)?;
    let given = |name: &str| words::parameter(parts.uri.query(), name);
    let Some(code) = given("code").filter(|code| !code.is_empty()) else {
        let error: String = given("error").unwrap_or_default();
        let error = error.chars().filter(|c| c.is_ascii_graphic()).take(64).collect::<String>();
        return Err(rejection(NotSignedIn::Refused(error)));
    };
    let found = oidc.finish(&returned, &code, given("iss").as_deref()).await.map_err(rejection)?;
    let org = match found.org {
        Some(org) => org,
        None => commands::default_owner(&app.store).await.map_err(|error| Rejection::fault(&error))?.org_id,
    };
    let lasts = oidc.session().as_secs();
    let signed = tokens.sign_user(found.user, org, found.roles, clock::now(), lasts);
    let token = signed.map_err(|error| rejection(error.into()))?;
    let person = auth::person_of(&token, parts, app)?;
    let once = Once::SignIn { id: fingerprint(state), expires_at: returned.expires_at };
    let cookie = sign_in::begin(app, person, &token, Some((once, not_begun))).await?;
    let next = Some(returned.next).filter(|next| is_own_page(next)).unwrap_or_default();
    Ok((cookie, next))
}

/// The sign-in that this browser began, if it is the one that comes back.
fn returned(app: &App, headers: &HeaderMap, state: &str) -> Option<Returned> {
    let kept = cookie_of(headers, &cookie_name(state, is_tls(app)))?;
    Oidc::returned(&app.enroller.tokens, kept, state, clock::now())
}

fn configured(app: &App) -> Result<&Oidc, Rejection> {
    let message = "no identity provider is configured (OIDC_ISSUER)";
    app.oidc.as_ref().ok_or_else(|| Rejection::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, message))
}

fn not_begun() -> Rejection {
    rejection(NotSignedIn::State)
}

fn rejection(refused: NotSignedIn) -> Rejection {
    let status = match &refused {
        NotSignedIn::State => StatusCode::BAD_REQUEST,
        NotSignedIn::Unavailable(_) => StatusCode::BAD_GATEWAY,
        NotSignedIn::Refused(_) | NotSignedIn::Token(_) | NotSignedIn::NoRole(_) => StatusCode::FORBIDDEN,
        NotSignedIn::Unsigned(_) => StatusCode::SERVICE_UNAVAILABLE,
        NotSignedIn::NoRandomness(error) => return Rejection::fault(error),
    };
    let (code, message) = (refused.code(), refused.to_string());
    // Anybody can come back from nowhere as often as they like.
    if !matches!(refused, NotSignedIn::State) {
        tracing::warn!(code = code.as_str(), reason = %message, "a sign-in through the identity provider failed");
    }
    Rejection::new(status, code, message)
}

fn cookie_name(state: &str, tls: bool) -> String {
    let host = if tls { "__Host-" } else { "" };
    let own: String = state
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
        .take(STATE_IN_NAME)
        .collect();
    format!("{host}{COOKIE}{own}")
}

/// Has the browser keep a sign-in, or forget it.
fn add_cookie(response: &mut Response, name: &str, value: Option<&str>, tls: bool) {
    let (value, seconds) = value.map_or(("", 0), |value| (value, COOKIE_SECS));
    let secure = if tls { "; Secure" } else { "" };
    let cookie = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sign_in_has_a_cookie_of_its_own_that_no_state_breaks_out_of() {
        assert_eq!(cookie_name("AbCd-_12345", true), "__Host-aio-sign-in-AbCd-_12");
        assert_eq!(cookie_name("a=b; Domain=x\r\n", false), "aio-sign-in-abDomain");
        let mut response = StatusCode::OK.into_response();
        add_cookie(&mut response, "aio-sign-in-x", Some("kept"), true);
        let cookie = &response.headers()[header::SET_COOKIE];
        assert_eq!(cookie, "aio-sign-in-x=kept; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure");
    }
}
