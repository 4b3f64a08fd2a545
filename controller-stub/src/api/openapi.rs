//! The OpenAPI document: what `routes!` gathered, and what holds for every operation by its shape, so that no handler repeats it.
//! Served at `/openapi.json`, to be browsed at `/docs`.

use std::sync::Arc;

use aio_protocol::{api::ApiError, event::EventKind, release::build};
use axum::{
    Json, Router,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response as HttpResponse},
    routing::get,
};
use utoipa::{
    ToSchema,
    openapi::{
        Components, Content, InfoBuilder, OpenApi, OpenApiBuilder, Paths, PathsBuilder, Ref, Response,
        ResponseBuilder,
        path::{HttpMethod, Operation, OperationBuilder, PathItem},
        request_body::RequestBodyBuilder,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use super::{event_schemas, not_found, path::InPath};
use crate::app::App;

/// Operations that ask nothing that can fail.
const WITHOUT_DATABASE: [&str; 6] =
    ["getDelivery", "resumeDelivery", "health", "readiness", "metrics", "watchEvents"];

/// The document before any operation is in it.
pub(super) fn empty() -> OpenApiRouter<Arc<App>> {
    let info = InfoBuilder::new()
        .title("AIWM node API")
        .version(build::VERSION)
        .description(Some("What controller-stub serves to users, installers, workers and outboxes."))
        .build();
    let bearer = |description| {
        let mut http = Http::new(HttpAuthScheme::Bearer);
        http.description = Some(String::from(description));
        SecurityScheme::Http(http)
    };
    let mut components = Components::new();
    components.add_security_scheme("user", bearer("A user's token"));
    components.add_security_scheme("node", bearer("A node's token"));
    components.add_security_scheme("observer", bearer("METRICS_TOKEN"));
    components.add_security_scheme("service", bearer("NOTI's service token"));
    OpenApiRouter::with_openapi(OpenApiBuilder::new().info(info).components(Some(components)).build())
}

/// Adds the document and its page to what is served.
pub(super) fn serve(router: Router<Arc<App>>, document: OpenApi) -> Router<Arc<App>> {
    router
        .route("/schemas/events/{file}", get(event_schema))
        .merge(SwaggerUi::new("/docs").url("/openapi.json", complete(document)))
}

async fn event_schema(InPath(file): InPath<String>, uri: Uri) -> HttpResponse {
    let of_file = |kind: &EventKind| file.strip_suffix(".json") == Some(kind.as_str());
    match EventKind::ALL.into_iter().find(of_file) {
        Some(kind) => {
            let schema = Json(event_schemas::standalone(kind));
            ([(header::CONTENT_TYPE, "application/schema+json")], schema).into_response()
        }
        None => not_found(uri).await.into_response(),
    }
}

/// The whole document: the operations with the errors that follow from their shape, and the events.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    let components = document.components.get_or_insert_with(Components::new);
    let mut schemas = Vec::new();
    ApiError::schemas(&mut schemas);
    schemas.push((ApiError::name().into_owned(), <ApiError as utoipa::PartialSchema>::schema()));
    let webhooks = webhooks(&mut schemas);
    components.schemas.extend(schemas);
    document.webhooks = Some(webhooks);
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            add_implied(path, operation);
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

/// What every operation of this shape can answer.
fn add_implied(path: &str, operation: &mut Operation) {
    let opened_by = |scheme: &str| {
        let needs = operation.security.iter().flatten();
        needs.filter_map(|it| serde_json::to_value(it).ok()).any(|it| it.get(scheme).is_some())
    };
    let (user, node, service) = (opened_by("user"), opened_by("node"), opened_by("service"));
    let takes_query = operation.parameters.iter().flatten().any(|parameter| {
        serde_json::to_value(parameter).is_ok_and(|it| it.get("in").is_some_and(|it| it == "query"))
    });
    let takes_body = operation.request_body.is_some();
    let mut implied = Vec::new();
    if takes_query || takes_body {
        implied.push((StatusCode::BAD_REQUEST, "VALIDATION_FAILED: the message names the field"));
    }
    if takes_body {
        implied.push((StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE"));
        implied.push((StatusCode::UNSUPPORTED_MEDIA_TYPE, "MEDIA_TYPE_UNSUPPORTED"));
    }
    if user || node {
        implied
            .push((StatusCode::UNAUTHORIZED, "TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED or TOKEN_REVOKED"));
        implied.push((
            StatusCode::FORBIDDEN,
            if node { "FORBIDDEN, TOKEN_FOREIGN or NODE_INACTIVE" } else { "FORBIDDEN" },
        ));
        implied.push((StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED, with Retry-After"));
    }
    if service {
        implied.push((StatusCode::UNAUTHORIZED, "TOKEN_MISSING, TOKEN_INVALID or SIGNATURE_REFUSED"));
    }
    if path.contains("{id}") || node {
        implied.push((StatusCode::NOT_FOUND, "NODE_NOT_FOUND"));
    }
    if !operation.operation_id.as_deref().is_some_and(|id| WITHOUT_DATABASE.contains(&id)) {
        implied.push((StatusCode::INTERNAL_SERVER_ERROR, "CONTROLLER_ERROR: the controller's log says why"));
    }
    // The listener's, before anything of the API sees the request.
    operation.responses.responses.insert(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_str().to_owned(),
        ResponseBuilder::new().description("The request's head is larger than 16 KiB").build().into(),
    );
    for (status, description) in implied {
        let answers = &mut operation.responses.responses;
        answers.entry(status.as_str().to_owned()).or_insert_with(|| error(description).into());
    }
}

fn error(description: &str) -> Response {
    ResponseBuilder::new()
        .description(description)
        .content("application/json", Content::new(Some(Ref::from_schema_name(ApiError::name()))))
        .build()
}

/// The events, as NOTI gets them.
fn webhooks(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>) -> Paths {
    let webhooks = EventKind::ALL.into_iter().fold(PathsBuilder::new(), |paths, kind| {
        let body = RequestBodyBuilder::new()
            .content("application/json", Content::new(Some(event_schemas::of(kind, schemas))))
            .build();
        let accepted = ResponseBuilder::new().description("Any 2xx: the event is kept").build();
        let operation = OperationBuilder::new()
            .operation_id(Some(kind.as_str()))
            .tag("events")
            .request_body(Some(body))
            .response("2XX", accepted)
            .build();
        paths.path(kind.as_str(), PathItem::new(HttpMethod::Post, operation))
    });
    webhooks.build()
}
