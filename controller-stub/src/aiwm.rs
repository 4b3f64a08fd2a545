//! AIWM's services as they speak to users, workers and dashboards, on the same listener: its REST and its
//! Socket.IO. A dialect at the edge of the controller: nodes, their status, leases and events are the
//! controller's own. Decides which requests are in the dialect; every other goes to the own API.

mod credentials;
mod dialect;
mod document;
mod double;
mod edge;
mod fields;
mod gateway;
mod list;
mod measured;
mod mona;
mod nodes;
mod notifications;
pub(crate) mod register;
mod routes;
mod sockets;
mod tokens;
mod users;

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    extract::Request,
    middleware,
    response::{IntoResponse, Response},
    routing::{any, delete, get, post},
};
use tower_service::Service;

use crate::{api, app::App, config::Aiwm};
use dialect::Dialect;
use routes::Route;
use sockets::Sockets;

/// `own`, with AIWM's dialect before it where that has a word.
pub(crate) fn before(app: Arc<App>, own: Router, mode: Aiwm, double: bool) -> Router {
    let dialect = Arc::new(Dialect::new(app.clone(), mode, double));
    let rest = api::within_bounds(app.clone(), rest().with_state(dialect.clone()));
    let (sockets, io) = Sockets::new(dialect.clone());
    gateway::open(&io, &dialect);
    notifications::open(&io, &dialect);
    let sockets = Router::new()
        .route("/socket.io/", any(sockets::serve))
        .route("/socket.io", any(sockets::serve))
        .with_state(Arc::new(sockets));
    let sockets = api::measured(app.clone(), sockets);
    let tests = api::within_bounds(app, double::api::routes().with_state(dialect.clone()));
    let dispatch = move |request: Request| {
        let router = match Route::of(request.method(), request.uri().path()) {
            Some(Route::Rest) => rest.clone(),
            Some(Route::Sockets) => sockets.clone(),
            Some(Route::Double) if double => tests.clone(),
            Some(Route::Double) | None => own.clone(),
        };
        async move { answer(router, request).await }
    };
    Router::new().fallback(dispatch).layer(middleware::from_fn_with_state(dialect, edge::dress))
}

async fn answer(mut router: Router, request: Request) -> Response {
    match Service::<Request>::call(&mut router, request).await {
        Ok(response) => response,
        Err(never) => <Infallible as IntoResponse>::into_response(never),
    }
}

fn rest() -> Router<Arc<Dialect>> {
    Router::new()
        .route("/nodes", get(list::list).post(nodes::register))
        .route("/nodes/{id}", get(nodes::show).merge(delete(nodes::remove)))
        .route("/nodes/{id}/approve", post(nodes::approve))
        .route("/nodes/{id}/maintenance", post(nodes::set_aside))
        .route("/nodes/{id}/setup-guide", post(credentials::setup_guide))
        .route("/nodes/{id}/regenerate-credentials", post(credentials::regenerate))
        .route("/nodes/auth/bootstrap", post(credentials::bootstrap))
        .route("/nodes/auth/login", post(credentials::login))
        .route("/nodes/auth/refresh", post(credentials::refresh))
        .route("/metrics/push/node", post(mona::push))
        .route("/health", get(mona::health))
        .route("/api-docs-json", get(mona::document))
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;

    #[test]
    fn every_route_of_the_dialect_is_dispatched_to_it() {
        // The router shows its paths in no other way.
        let shown = format!("{:?}", rest());
        let paths = shown.split('"').filter(|text| text.starts_with('/') && !text.contains("fallback"));
        for path in paths.filter(|path| path.len() > 1) {
            let path = path.replace("{id}", "69396100cd71623c7bbfbfee");
            let named =
                [Method::GET, Method::POST].iter().any(|it| Route::of(it, &path) == Some(Route::Rest));
            assert!(named, "{path}");
        }
    }
}
