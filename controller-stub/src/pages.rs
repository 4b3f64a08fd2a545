//! The pages at `/`: what a browser shows of the controller. They are rendered here and read without
//! JavaScript. Whatever a page shows or does it asks the API for, in this process and as the user who is
//! signed in: one table of roles, one audit trail, one set of refusals. The API does not know of them.

mod access;
mod add;
mod alarms;
mod api;
mod assets;
mod audit;
mod bulk;
mod containers;
mod counts;
mod delivery;
mod events;
mod frame;
mod gpus;
mod live;
mod node;
mod nodes;
mod oidc;
mod orders;
mod overview;
mod refusal;
mod scene;
mod session;
mod sign_in;
mod updates;
mod webhooks;
mod words;

use std::{convert::Infallible, sync::Arc};

use aio_protocol::error_code::ErrorCode;
use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tower_service::Service;

use crate::{
    api::{self as own, error::Rejection},
    app::App,
};
use session::Visitor;

/// Where the identity provider leads back to.
pub(crate) const CALLBACK: &str = "/ui/login/oidc/callback";

/// What every page needs at hand.
pub(crate) struct Pages {
    app: Arc<App>,
    /// The API, as it is served.
    api: Router,
}

/// `inner`, with the pages at `/` and below `/ui`, which ask `api`.
pub(crate) fn before(app: Arc<App>, api: Router, inner: Router) -> Router {
    let pages = Arc::new(Pages { app: app.clone(), api });
    let routes = routes().with_state(pages).layer(middleware::from_fn(frame::dress));
    let routes = own::bounded(app, routes);
    let dispatch = move |request: Request| {
        let router = if is_page(request.uri().path()) { routes.clone() } else { inner.clone() };
        async move { answer(router, request).await }
    };
    Router::new().fallback(dispatch)
}

fn is_page(path: &str) -> bool {
    matches!(path, "/" | "/ui" | "/favicon.ico") || path.starts_with("/ui/")
}

async fn answer(mut router: Router, request: Request) -> Response {
    match Service::<Request>::call(&mut router, request).await {
        Ok(response) => response,
        Err(never) => <Infallible as IntoResponse>::into_response(never),
    }
}

fn routes() -> Router<Arc<Pages>> {
    Router::new()
        .route("/", get(overview::show))
        .route("/favicon.ico", get(assets::icon))
        .route("/ui", get(overview::redirect))
        .route("/ui/assets/{name}", get(assets::serve))
        .route("/ui/live", get(live::connect))
        .route("/ui/login", get(sign_in::form).post(sign_in::with_token))
        .route("/ui/login/oidc", get(oidc::begin))
        .route(CALLBACK, get(oidc::finish))
        .route("/ui/login/{secret}", get(sign_in::link).post(sign_in::with_link))
        .route("/ui/logout", post(sign_in::leave))
        .route("/ui/nodes", get(nodes::list))
        .route("/ui/nodes/bulk", post(bulk::act))
        .route("/ui/nodes/{id}", get(node::show))
        .route("/ui/nodes/{id}/{action}", post(orders::node))
        .route("/ui/add", get(add::form).post(add::register))
        .route("/ui/alarms", get(alarms::list))
        .route("/ui/alarms/{id}", get(alarms::show))
        .route("/ui/alarms/{id}/acknowledge", post(alarms::acknowledge))
        .route("/ui/silences", post(alarms::silence))
        .route("/ui/silences/{id}/end", post(alarms::end_silence))
        .route("/ui/updates", get(updates::list).post(orders::create_rollout))
        .route("/ui/updates/{id}", get(updates::show))
        .route("/ui/updates/{id}/{order}", post(orders::rollout))
        .route("/ui/events", get(events::list))
        .route("/ui/delivery", get(delivery::show))
        .route("/ui/delivery/{order}", post(orders::delivery))
        .route("/ui/webhooks", get(webhooks::list).post(webhooks::add))
        .route("/ui/webhooks/{id}", get(webhooks::show))
        .route("/ui/webhooks/{id}/{order}", post(webhooks::order))
        .route("/ui/audit", get(audit::list))
        .route("/ui/access", get(access::show))
        .route("/ui/access/end", post(orders::end_sessions))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

async fn not_found(visitor: Visitor) -> Response {
    let message = "there is no such page";
    visitor.scene.refuse(Rejection::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, message))
}

async fn method_not_allowed(visitor: Visitor) -> Response {
    let (status, code) = (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::MethodNotAllowed);
    visitor.scene.refuse(Rejection::new(status, code, "this page takes no such request"))
}
