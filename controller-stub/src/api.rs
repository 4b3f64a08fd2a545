//! The HTTP API: which address is served by what, and what holds for all of them. Every error is an
//! `ApiError`, and every address is added by `routes!`, which puts it into the OpenAPI document too.

mod alarm_timeline;
pub(crate) mod alarms;
mod asyncapi;
pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod client;
mod controllers;
mod cors;
mod dashboards;
mod dead_letters;
mod delivery;
pub(crate) mod edge;
pub(crate) mod error;
mod event_schemas;
mod events;
mod fields;
mod fleet;
pub(crate) mod health;
mod idempotency;
#[cfg(test)]
pub(crate) mod inputs;
mod installation;
pub(crate) mod limit;
mod measure;
mod nodes;
mod openapi;
mod path;
mod releases;
pub(crate) mod roles;
pub(crate) mod rollouts;
mod service;
mod telemetry;
mod token;
mod transitions;
mod updates;
pub(crate) mod upgrade;
mod view;
pub(crate) mod webhooks;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use aio_protocol::error_code::ErrorCode;
use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{Method, StatusCode, Uri},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{app::App, gateway};
use error::Rejection;

/// No body of the API comes near it.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Everything that is served, and its description.
fn documented() -> OpenApiRouter<Arc<App>> {
    openapi::empty()
        .routes(routes!(health::health))
        .routes(routes!(health::readiness))
        .routes(routes!(health::metrics))
        .routes(routes!(fleet::show))
        .routes(routes!(nodes::list, nodes::register))
        .routes(routes!(nodes::show, nodes::change, service::decommission))
        .routes(routes!(service::begin_maintenance))
        .routes(routes!(service::resume))
        .routes(routes!(transitions::list))
        .routes(routes!(telemetry::show))
        .routes(routes!(token::issue))
        .routes(routes!(token::regenerate))
        .routes(routes!(token::list))
        .routes(routes!(updates::pin, updates::unpin))
        .routes(routes!(updates::update))
        .routes(routes!(updates::show_group, updates::change_group))
        .routes(routes!(rollouts::list, rollouts::create))
        .routes(routes!(rollouts::show))
        .routes(routes!(rollouts::nodes))
        .routes(routes!(rollouts::order))
        .routes(routes!(audit::list))
        .routes(routes!(alarms::list))
        .routes(routes!(alarm_timeline::show))
        .routes(routes!(alarms::acknowledge))
        .routes(routes!(alarms::silences, alarms::silence))
        .routes(routes!(alarms::end_silence))
        .routes(routes!(webhooks::list, webhooks::add))
        .routes(routes!(webhooks::show, webhooks::alter, webhooks::remove))
        .routes(routes!(webhooks::rotate))
        .routes(routes!(webhooks::test))
        .routes(routes!(webhooks::attempts))
        .routes(routes!(webhooks::dead_letters, webhooks::drop_dead_letters))
        .routes(routes!(webhooks::replay))
        .routes(routes!(installation::plan, installation::report))
        .routes(routes!(releases::download))
        .routes(routes!(releases::index))
        .routes(routes!(releases::index_signature))
        .routes(routes!(events::list, events::receive))
        .routes(routes!(dead_letters::list, dead_letters::drop_all))
        .routes(routes!(dead_letters::replay_all))
        .routes(routes!(dead_letters::replay))
        .routes(routes!(delivery::show))
        .routes(routes!(delivery::resume))
        .routes(routes!(controllers::list))
        .routes(routes!(dashboards::watch))
        .routes(routes!(gateway::connect))
}

/// Everything that is served.
pub(crate) fn router(app: Arc<App>) -> Router {
    let (router, document) = documented().split_for_parts();
    openapi::serve(router, document, &app.enroller.deployment)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(app.clone(), idempotency::once))
        .layer(middleware::from_fn_with_state(app.clone(), finish_what_began))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(app.clone(), cors::admit_pages))
        .layer(middleware::from_fn_with_state(app.clone(), edge::pass))
        .layer(middleware::from_fn(measure::measure))
        .with_state(app)
}

/// Another dialect's routes, with what holds for every request here but what is the own API's alone.
pub(crate) fn within_bounds(app: Arc<App>, routes: Router) -> Router {
    bounded(app, routes.fallback(not_found).method_not_allowed_fallback(method_not_allowed))
}

/// Routes that say by themselves what they have not, with what holds for every request here.
pub(crate) fn bounded(app: Arc<App>, routes: Router) -> Router {
    let routes = routes
        .layer(middleware::from_fn_with_state(app.clone(), finish_what_began))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
    measured(app, routes)
}

/// Routes whose bodies have limits of their own.
pub(crate) fn measured(app: Arc<App>, routes: Router) -> Router {
    routes
        .layer(middleware::from_fn_with_state(app.clone(), cors::admit_pages))
        .layer(middleware::from_fn_with_state(app, edge::pass))
        .layer(middleware::from_fn(measure::measure))
}

/// Runs what may change something in a task of its own: a client that hangs up cancels nothing that
/// has begun.
async fn finish_what_began(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    if request.uri().query().is_some_and(|query| !query.is_empty()) && is_taken(&request) {
        return Rejection::field("the query: this address takes none").into_response();
    }
    match app.connections.spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) => Rejection::fault(&error).into_response(),
    }
}

/// Whether the address has the request's method, as far as the API's own document knows.
fn is_taken(request: &Request) -> bool {
    static METHODS: LazyLock<HashMap<String, Vec<String>>> = LazyLock::new(|| {
        let mut methods = HashMap::<_, Vec<_>>::new();
        addresses().into_iter().for_each(|(method, path)| methods.entry(path).or_default().push(method));
        methods
    });
    let path = request.extensions().get::<MatchedPath>().and_then(|path| METHODS.get(path.as_str()));
    path.is_none_or(|methods| methods.iter().any(|method| method == request.method().as_str()))
}

/// The method and path of everything that is served.
pub fn addresses() -> Vec<(String, String)> {
    let described = openapi::DESCRIPTIONS.map(|path| ("GET".to_owned(), path.to_owned()));
    let document = documented().into_openapi();
    openapi::addresses(&document).into_iter().chain(described).collect()
}

async fn not_found(uri: Uri) -> Rejection {
    let message = format!("there is nothing at {}", uri.path());
    Rejection::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, message)
}

// axum adds the Allow header.
async fn method_not_allowed(method: Method, uri: Uri) -> Rejection {
    let message = format!("{} does not take {method}", uri.path());
    Rejection::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::MethodNotAllowed, message)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_router_has_the_addresses_that_are_told_and_no_others() {
        let (router, document) = documented().split_for_parts();
        let deployment = crate::deployment::Deployment::new(
            &crate::config::Config::new("data"),
            ([127, 0, 0, 1], 1).into(),
            None,
        );
        // The router shows its paths in no other way.
        let shown = format!("{:?}", openapi::serve(router, document, &deployment));
        let (shown, _fallbacks) = shown.split_once("fallback_router").unwrap();
        let routed: BTreeSet<_> =
            shown.split('"').filter(|text| text.starts_with('/')).map(str::to_owned).collect();
        let told: BTreeSet<_> = addresses().into_iter().map(|(_, path)| path).collect();
        assert_eq!(routed, told);
    }
}
