//! The OpenAPI document: what `routes!` gathered, and what holds for every operation by its shape, so that no
//! handler repeats it. Served at `/openapi.json`, to be browsed at `/docs`, with the other documents beside
//! it.

use std::sync::Arc;

use aio_protocol::{api::ApiError, event::EventKind, release::build};
use axum::{
    Json, Router,
    body::Bytes,
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response as HttpResponse},
    routing::get,
};
use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::{
        Components, Content, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, Paths, PathsBuilder, Ref,
        RefOr, Response, ResponseBuilder, Server,
        path::{HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn, PathItem},
        request_body::RequestBodyBuilder,
        schema::Type,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::Config;

use super::{asyncapi, event_schemas, idempotency, not_found, path::InPath};
use crate::{app::App, deployment::Deployment};

/// Operations that ask nothing that can fail.
const WITHOUT_DATABASE: [&str; 6] =
    ["getDelivery", "resumeDelivery", "health", "readiness", "metrics", "watchEvents"];

/// The document before any operation is in it.
pub(super) fn empty() -> OpenApiRouter<Arc<App>> {
    let info = InfoBuilder::new()
        .title("AIWM node API")
        .version(build::number())
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

/// What describes the API and is not in its document.
pub(super) const DESCRIPTIONS: [&str; 6] =
    ["/openapi.json", "/asyncapi.json", "/schemas/events/{file}", "/docs", "/docs/", "/docs/{*file}"];

/// Adds the documents and the page to browse them to what is served. The page names nothing by an
/// absolute path, so that it works below whatever path a proxy puts before the controller's.
pub(super) fn serve(
    router: Router<Arc<App>>,
    document: OpenApi,
    deployment: &Deployment,
) -> Router<Arc<App>> {
    let mut document = complete(document);
    // Without a public address: wherever the document was fetched from.
    let server = if deployment.public { deployment.api.as_str() } else { "." };
    document.servers = Some(vec![Server::new(server)]);
    // As text, a tenth of the memory.
    let (openapi, asyncapi) = (written(&document), written(&asyncapi::document(deployment)));
    let page = Arc::new(Config::from("../openapi.json"));
    let answers = [
        get(async || openapi),
        get(async || asyncapi),
        get(event_schema),
        get(async || (StatusCode::SEE_OTHER, [(header::LOCATION, "docs/")])),
        get({
            let page = page.clone();
            move |uri: Uri| page_file(page, String::new(), uri)
        }),
        get(move |InPath(file): InPath<String>, uri: Uri| page_file(page, file, uri)),
    ];
    DESCRIPTIONS.into_iter().zip(answers).fold(router, |router, (path, answer)| router.route(path, answer))
}

/// A document as it is answered each time.
fn written(document: &impl Serialize) -> impl IntoResponse + Clone + Send + 'static {
    let text = serde_json::to_vec(document).unwrap_or_default();
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], Bytes::from(text))
}

async fn page_file(page: Arc<Config<'static>>, name: String, uri: Uri) -> HttpResponse {
    match utoipa_swagger_ui::serve(&name, page).ok().flatten() {
        Some(file) => ([(header::CONTENT_TYPE, file.content_type)], file.bytes.into_owned()).into_response(),
        None => not_found(uri).await.into_response(),
    }
}

/// The method and path of every operation.
pub(super) fn addresses(document: &OpenApi) -> Vec<(String, String)> {
    let methods = |item: &PathItem| {
        let PathItem { get, put, post, delete, patch, .. } = item;
        let all = [("GET", get), ("PUT", put), ("POST", post), ("DELETE", delete), ("PATCH", patch)];
        all.into_iter()
            .filter_map(|(name, operation)| operation.is_some().then_some(name))
            .collect::<Vec<_>>()
    };
    let of_path = |(path, item): (&String, &PathItem)| {
        methods(item).into_iter().map(|method| (method.to_owned(), path.clone())).collect::<Vec<_>>()
    };
    document.paths.paths.iter().flat_map(of_path).collect()
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
        if let Some(post) = item.post.as_mut().filter(|_| idempotency::MAKING.contains(&path.as_str())) {
            add_idempotency(post);
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

/// What an operation of which a request may be sent again takes and answers.
fn add_idempotency(operation: &mut Operation) {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(255));
    let key = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .description(Some("Sent again with the same key and body within a day, the request is done once and answered as before"))
        .schema(Some(text.pattern(Some("^[!-~]+$"))))
        .build();
    operation.parameters.get_or_insert_default().push(key.into());
    let reused = "IDEMPOTENCY_KEY_REUSED: the key stands for a request with another body";
    let in_use = "IDEMPOTENCY_KEY_IN_USE: the key's request is being answered";
    let invalid = "VALIDATION_FAILED: the message names the field";
    let answers = &mut operation.responses.responses;
    for (status, description) in [
        (StatusCode::UNPROCESSABLE_ENTITY, reused),
        (StatusCode::CONFLICT, in_use),
        (StatusCode::BAD_REQUEST, invalid),
    ] {
        match answers.get_mut(status.as_str()) {
            Some(RefOr::T(known)) if status == StatusCode::CONFLICT => {
                known.description = format!("{}; {description}", known.description);
            }
            Some(_) => {}
            None => {
                answers.insert(status.as_str().to_owned(), error(description).into());
            }
        }
    }
}

fn error(description: &str) -> Response {
    ResponseBuilder::new()
        .description(description)
        .content("application/json", Content::new(Some(Ref::from_schema_name(ApiError::name()))))
        .build()
}

/// The events, as NOTI gets them.
fn webhooks(schemas: &mut Vec<(String, RefOr<utoipa::openapi::Schema>)>) -> Paths {
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
