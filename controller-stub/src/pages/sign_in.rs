//! Getting in and out: a link that `controller-stub login` prints and that works once, or a user's token in a
//! form. The identity provider's way in is `oidc`.

use std::sync::Arc;

use aio_protocol::error_code::ErrorCode;
use askama::Template;
use axum::{
    extract::{FromRequestParts, Path, Request, State},
    http::{StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};

use super::{
    Pages,
    frame::{Frame, Tab},
    scene::{Scene, is_own_page},
    session::{self, Posted, Visitor},
    words,
};
use crate::{
    api::{
        audit::Asked,
        auth::{self, Person},
        error::Rejection,
    },
    app::App,
    clock, random,
    store::{Ended, LoginLink, Once, Session, Store},
    tokens::fingerprint,
};

#[derive(Template)]
#[template(path = "pages/login.html")]
struct SignIn {
    frame: Frame,
    /// Where to go then.
    next: String,
    refused: Option<&'static str>,
    /// The identity provider, and where a sign-in through it begins.
    provider: Option<(String, String)>,
}

impl SignIn {
    fn new(scene: &Scene, app: &App, next: String, refused: Option<&'static str>) -> Self {
        let provider = app.oidc.as_ref().map(|oidc| {
            // At the address that the provider leads back to, whose cookies it will have.
            let begin =
                format!("{}/ui/login/oidc?next={}", app.enroller.deployment.api, words::escaped(&next));
            (oidc.name().to_owned(), begin)
        });
        Self { frame: Frame::new(scene, Tab::None), next, refused, provider }
    }
}

#[derive(Template)]
#[template(path = "pages/link.html")]
struct Linked {
    frame: Frame,
    user: String,
    roles: String,
    lasts: String,
}

/// The form for a token.
pub(super) async fn form(State(pages): State<Arc<Pages>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let scene = Scene::of(&parts.uri);
    let next = next_of(&parts.uri);
    match Visitor::from_request_parts(&mut parts, &pages).await {
        Ok(_) => scene.see_other(&next),
        Err(answer) if answer.status() == StatusCode::TOO_MANY_REQUESTS => answer,
        Err(_) => scene.page(&SignIn::new(&scene, &pages.app, next, None)),
    }
}

/// The page of ours that a query leads to.
pub(super) fn next_of(uri: &Uri) -> String {
    words::parameter(uri.query(), "next").filter(|next| is_own_page(next)).unwrap_or_default()
}

/// Signs in with a token that was pasted.
pub(super) async fn with_token(State(pages): State<Arc<Pages>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let scene = Scene::of(&parts.uri);
    if let Err(rejection) = session::from_own_page(&parts.headers, &pages.app) {
        return scene.refuse(rejection);
    }
    let (outer, request) = (parts.clone(), Request::from_parts(parts, body));
    let fields = match session::fields(request, &scene).await {
        Ok(fields) => fields,
        Err(answer) => return answer,
    };
    let next = Some(fields.text("next")).filter(|next| is_own_page(next)).unwrap_or_default();
    let token = fields.text("token");
    let refused = match auth::person_of(token, &outer, &pages.app) {
        Ok(person) => match begin(&pages.app, person, token, None).await {
            Ok(cookie) => return with_cookie(&pages.app, &scene, next, cookie),
            Err(rejection) => return scene.refuse(rejection),
        },
        Err(rejection) => match rejection.code() {
            ErrorCode::TokenExpired => "TOKEN_EXPIRED: this token has ended; ask for another.",
            ErrorCode::RateLimited => return scene.refuse(rejection),
            ErrorCode::Forbidden => "FORBIDDEN: this is a node's token, and pages take a user's.",
            _ => "TOKEN_INVALID: this is not a token of this controller; copy it again, whole.",
        },
    };
    let page = SignIn::new(&scene, &pages.app, next.to_owned(), Some(refused));
    (StatusCode::UNAUTHORIZED, scene.page(&page)).into_response()
}

/// Asks whether to sign in with a link. Programs that look at links before people do use none up.
pub(super) async fn link(
    State(pages): State<Arc<Pages>>,
    Path(secret): Path<String>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let scene = Scene::of(&parts.uri);
    match link_of(&pages.app, &secret, &parts).await {
        Ok(link) => scene.page(&Linked {
            frame: Frame::new(&scene, Tab::None),
            user: link.user.to_string(),
            roles: link.roles.join(", "),
            lasts: words::duration(std::time::Duration::from_secs(link.session_secs)),
        }),
        Err(rejection) => scene.refuse(rejection),
    }
}

/// Signs in with a link, and uses it up.
pub(super) async fn with_link(
    State(pages): State<Arc<Pages>>,
    Path(secret): Path<String>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let scene = Scene::of(&parts.uri);
    let begun = async {
        session::from_own_page(&parts.headers, &pages.app)?;
        let link = link_of(&pages.app, &secret, &parts).await?;
        let tokens = &pages.app.enroller.tokens;
        let (user, org, roles) = (link.user.clone(), link.org.clone(), link.roles.clone());
        let signed = tokens.sign_user(user, org, roles, clock::now(), link.session_secs);
        let token = signed.map_err(|error| {
            Rejection::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), error.to_string())
        })?;
        let person = auth::person_of(&token, &parts, &pages.app)?;
        begin(&pages.app, person, &token, Some((Once::Link(link.id), used_up))).await
    };
    match begun.await {
        Ok(cookie) => with_cookie(&pages.app, &scene, "", cookie),
        Err(rejection) => scene.refuse(rejection),
    }
}

fn used_up() -> Rejection {
    let message = "this link has signed somebody in, is too old, or never was one";
    Rejection::new(StatusCode::GONE, ErrorCode::LoginLinkInvalid, message)
}

async fn link_of(app: &App, secret: &str, parts: &Parts) -> Result<LoginLink, Rejection> {
    auth::count_stranger(parts, app)?;
    app.store.login_link(&fingerprint(secret), clock::now()).await?.ok_or_else(used_up)
}

/// A cookie's value, and for how many seconds.
pub(super) type Cookie = (SecretString, i64);

/// Begins a session, and says its cookie. What it begins `by` is refused as it says when somebody else has used
/// it up.
pub(super) async fn begin(
    app: &App,
    person: Person,
    token: &str,
    by: Option<(Once, fn() -> Rejection)>,
) -> Result<Cookie, Rejection> {
    let cookie = session::cookie_value(&random::word()?, token);
    let now = clock::now();
    let expires_at = aio_protocol::time::Timestamp::from_millis(person.exp.saturating_mul(1000));
    let session = Session {
        id: fingerprint(&cookie),
        org: person.org_id.clone(),
        user: person.sub.clone(),
        roles: person.roles.clone(),
        began_at: now,
        expires_at,
        address: Some(person.address.to_string()),
    };
    let (by, used) = by.unzip();
    let asked = Asked { action: "session.begin", node: None, target: None, detail: None };
    let work = async |store: Store| match store.begin_session(session, by).await? {
        true => Ok(()),
        false => Err(used.map_or_else(used_up, |used| used())),
    };
    person.audited(app, asked, work).await?;
    let seconds = i64::try_from(expires_at.since(now).as_secs()).unwrap_or(i64::MAX);
    Ok((cookie.into(), seconds))
}

fn with_cookie(app: &App, scene: &Scene, page: &str, (value, seconds): Cookie) -> Response {
    let mut response = scene.see_other(page);
    if let Some(cookie) = session::set_cookie(app, Some((value.expose_secret(), seconds))) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// Signs out.
pub(super) async fn leave(State(_): State<Arc<Pages>>, request: Posted) -> Response {
    let Posted { visitor, .. } = request;
    let asked = Asked { action: "session.end", node: None, target: None, detail: None };
    let work = async |store: Store| {
        store.end_sessions(&visitor.session.org, Ended::One(visitor.session.id.clone())).await?;
        Ok(())
    };
    if let Err(rejection) = visitor.person.audited(visitor.app(), asked, work).await {
        return visitor.scene.refuse(rejection);
    }
    let mut response = visitor.scene.see_other("ui/login");
    if let Some(cookie) = session::set_cookie(visitor.app(), None) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}
