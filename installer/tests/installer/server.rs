//! A controller and its release server on a port of the kernel's choice.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

/// How the release server answers.
#[derive(Debug, Clone)]
pub enum Release {
    /// With the file.
    Whole,
    /// With this status.
    Status(u16),
    /// With this status for the first so many requests.
    StatusAtFirst(u16, u32),
    /// With half of it, after having promised all, for the first so many requests.
    CutOff(u32),
    /// With a tenth of what is asked for in each answer, whose range and tag it knows. `changes`:
    /// the second answer is of another file, and whoever then begins again gets all of it;
    /// otherwise the third answer is 503.
    Piecemeal { changes: bool },
    /// With bytes that never end, and no length.
    Endless,
    /// With this body and its length.
    Other(Vec<u8>),
    /// With this body in chunks, so without a length.
    Chunked(Vec<u8>),
    /// With its head and not a byte more.
    Stalled,
    /// With a redirect.
    Elsewhere(String),
}

/// How the controller answers a request for the plan.
#[derive(Debug, Clone)]
pub enum Plan {
    /// With a plan; these keys are other than usual.
    Given(Value),
    /// With an error of the API.
    Refused(u16, &'static str),
    /// With an error of the API for the first so many requests.
    RefusedAtFirst(u16, &'static str, u32),
    /// With this text.
    Text(&'static str),
    /// With this status and text, as something between the two does.
    Foreign(u16, &'static str),
    /// With something that never ends.
    Endless,
    /// Not at all.
    Never,
}

#[derive(Debug)]
pub struct Behaviour {
    pub base: String,
    pub node: String,
    pub token: Option<String>,
    pub file: Vec<u8>,
    pub version: &'static str,
    pub signature: Option<String>,
    pub plan: Plan,
    /// The `Retry-After` of its refusals.
    pub retry_after: Option<&'static str>,
    /// The `Date` of its answers, where it is not the present.
    pub date: Option<&'static str>,
    pub release: Release,
    pub report_status: u16,
    pub reports: Vec<Value>,
    pub plans: u32,
    pub downloads: u32,
    /// Of those, the ones that asked for a part.
    pub parts: u32,
    /// What the release server was shown in `Authorization`.
    pub leaked: Option<String>,
}

/// What begins as a program for amd64 does.
pub fn program(rest: &[u8]) -> Vec<u8> {
    [b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0".as_slice(), rest].concat()
}

pub type Shared = Arc<Mutex<Behaviour>>;

pub async fn start(node: &str) -> Shared {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let shared = Arc::new(Mutex::new(Behaviour {
        base,
        node: node.to_owned(),
        token: None,
        file: program(&b"the release ".repeat(9000)),
        version: "v1.0.0",
        signature: None,
        plan: Plan::Given(json!({})),
        retry_after: None,
        date: None,
        release: Release::Whole,
        report_status: 200,
        reports: Vec::new(),
        plans: 0,
        downloads: 0,
        parts: 0,
        leaked: None,
    }));
    let app = Router::new()
        .route("/nodes/{id}/installation", get(give_plan).post(take_report))
        .route("/releases/{version}/{platform}", get(give_release))
        .with_state(Arc::clone(&shared));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    shared
}

fn error(status: u16, code: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    let body = json!({ "statusCode": status.as_u16(), "error": "…", "message": format!("said {code}"), "code": code });
    (status, Json(body)).into_response()
}

fn authorized(behaviour: &Behaviour, id: &str, headers: &HeaderMap) -> bool {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    id == behaviour.node
        && behaviour.token.as_ref().is_none_or(|token| shown == Some(&format!("Bearer {token}")))
}

async fn give_plan(state: State<Shared>, id: Path<String>, headers: HeaderMap) -> Response {
    let (date, retry_after) = {
        let behaviour = state.lock().unwrap();
        (behaviour.date, behaviour.retry_after)
    };
    let mut answer = planned(state, id, headers).await;
    if let Some(seconds) = retry_after.filter(|_| !answer.status().is_success()) {
        answer.headers_mut().insert(header::RETRY_AFTER, seconds.parse().unwrap());
    }
    if let Some(date) = date {
        answer.headers_mut().insert(header::DATE, date.parse().unwrap());
    }
    answer
}

async fn planned(State(shared): State<Shared>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let (plan, count) = {
        let mut behaviour = shared.lock().unwrap();
        behaviour.plans += 1;
        if !authorized(&behaviour, &id, &headers) {
            return error(401, "TOKEN_INVALID");
        }
        (behaviour.plan.clone(), behaviour.plans)
    };
    match plan {
        Plan::Refused(status, code) => error(status, code),
        Plan::RefusedAtFirst(status, code, times) if count <= times => error(status, code),
        Plan::Given(changes) => usual_plan(&shared, &changes),
        Plan::RefusedAtFirst(..) => usual_plan(&shared, &json!({})),
        Plan::Text(text) => text.into_response(),
        Plan::Foreign(status, text) => (StatusCode::from_u16(status).unwrap(), text).into_response(),
        Plan::Endless => Body::from_stream(endless()).into_response(),
        Plan::Never => std::future::pending().await,
    }
}

fn usual_plan(shared: &Shared, changes: &Value) -> Response {
    let behaviour = shared.lock().unwrap();
    let mut plan = json!({
        "nodeId": behaviour.node, "nodeName": "gpu-worker-01", "status": "pending", "version": behaviour.version,
        "platform": "linux-amd64",
        "downloadUrl": format!("{}/releases/{}/linux-amd64", behaviour.base, behaviour.version),
        "checksum": sha256(&behaviour.file), "size": behaviour.file.len(),
        "controllerEndpoint": "ws://127.0.0.1:1/ws/node", "documentationUrl": "https://docs.example",
    });
    if let Some(signature) = &behaviour.signature {
        plan["signature"] = signature.as_str().into();
    }
    for (key, value) in changes.as_object().unwrap() {
        plan[key] = value.clone();
    }
    Json(plan).into_response()
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

async fn take_report(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(report): Json<Value>,
) -> Response {
    let mut behaviour = shared.lock().unwrap();
    assert!(authorized(&behaviour, &id, &headers));
    behaviour.reports.push(report);
    match behaviour.report_status {
        200 => Json(json!({ "status": "installing" })).into_response(),
        409 => error(409, "TRANSITION_REFUSED"),
        status => error(status, "INTERNAL"),
    }
}

async fn give_release(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let (release, file, count) = {
        let mut behaviour = shared.lock().unwrap();
        behaviour.downloads += 1;
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            behaviour.leaked = Some(value.to_str().unwrap().to_owned());
        }
        behaviour.parts += u32::from(headers.contains_key(header::RANGE));
        (behaviour.release.clone(), behaviour.file.clone(), behaviour.downloads)
    };
    match release {
        Release::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Release::StatusAtFirst(status, times) if count <= times => {
            StatusCode::from_u16(status).unwrap().into_response()
        }
        Release::CutOff(times) if count <= times => cut_off(file),
        Release::Whole | Release::StatusAtFirst(..) | Release::CutOff(_) => file.into_response(),
        Release::Piecemeal { changes: false } if count == 3 => {
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        Release::Piecemeal { changes: true } if count > 2 && !headers.contains_key(header::RANGE) => {
            file.into_response()
        }
        Release::Piecemeal { changes } => piece(&file, &headers, changes && count == 2),
        Release::Endless => Body::from_stream(endless()).into_response(),
        Release::Other(body) => body.into_response(),
        Release::Chunked(body) => {
            let chunks: Vec<_> =
                body.chunks(1000).map(|chunk| Ok::<_, Infallible>(Bytes::copy_from_slice(chunk))).collect();
            Body::from_stream(stream::iter(chunks)).into_response()
        }
        Release::Stalled => Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()).into_response(),
        Release::Elsewhere(url) => Redirect::temporary(&url).into_response(),
    }
}

/// A tenth of the file, from where it is asked for, under the length of all that is asked for. With
/// `other`, its bytes are another file's, although the tag says that they are not.
fn piece(file: &[u8], headers: &HeaderMap, other: bool) -> Response {
    let range = headers.get(header::RANGE).map(|range| range.to_str().unwrap());
    let start: usize = range
        .map_or(0, |range| range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap());
    if range.is_some() {
        assert_eq!(headers[header::IF_RANGE], "\"of the file\"");
    }
    let rest = &file[start..];
    let mut bytes = rest[..rest.len().min(file.len() / 10)].to_vec();
    if other {
        bytes.fill(b'?');
    }
    let is_cut_off = bytes.len() < rest.len();
    let breaks = stream::iter(is_cut_off.then(|| Err(std::io::Error::other("the connection breaks"))));
    // What was sent is on its way by then; a server that fails at once sends nothing at all.
    let breaks = breaks.then(async |error| {
        tokio::time::sleep(Duration::from_millis(5)).await;
        error
    });
    let body = Body::from_stream(stream::iter([Ok(Bytes::from(bytes))]).chain(breaks));
    let status = if start == 0 { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
    let content_range = format!("bytes {start}-{}/{}", file.len() - 1, file.len());
    let headers = [
        (header::CONTENT_LENGTH, rest.len().to_string()),
        (header::CONTENT_RANGE, content_range),
        (header::ETAG, "\"of the file\"".to_owned()),
    ];
    (status, headers, body).into_response()
}

/// Half of the file under the length of all of it.
fn cut_off(file: Vec<u8>) -> Response {
    let half = Bytes::copy_from_slice(&file[..file.len() / 2]);
    let body = stream::iter([Ok(half), Err(std::io::Error::other("the connection breaks"))]);
    ([(header::CONTENT_LENGTH, file.len().to_string())], Body::from_stream(body)).into_response()
}

fn endless() -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    stream::repeat_with(|| Ok(Bytes::from(vec![b'x'; 16 * 1024]))).then(async |chunk| {
        tokio::time::sleep(Duration::from_micros(100)).await;
        chunk
    })
}
