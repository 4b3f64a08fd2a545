//! A machine's way in: setup token → bootstrap → secret → login → node token → refresh. A secret is shown
//! once, and kept as its hash with what else changes, or not at all.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aio_protocol::{
    aiwm::rest::{Bootstrap, Bootstrapped, Hidden, LoggedIn, LoggedInNode, Login, Refresh},
    error_code::ErrorCode,
    ids::NodeId,
    installation::InstallationReport,
    node::NodeStatus,
    wire::close,
};
use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    dialect::Dialect,
    fields::Fields,
    nodes::{not_while, seen},
    tokens::{self, NODE_LIFE_SECS, REFRESH_GRACE, Unusable},
    users::User,
};
use crate::{
    api::{audit::Asked, auth, error::Rejection},
    app::App,
    clock,
    lifecycle::{LifecycleError, Occurrence, Saving},
    node::Node,
    store::{RecordedStep, SecretKept, Store, StoreError},
    tokens::fingerprint,
};

/// The `disconnectReason` of a worker whose node was given another secret.
const REGENERATED: &str = "credentials_regenerated";

const ONCE: &str = "keep this secret: it is shown once";

/// Somebody without a token, who is counted by their address.
pub(super) struct Stranger;

impl FromRequestParts<Arc<Dialect>> for Stranger {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, dialect: &Arc<Dialect>) -> Result<Self, Rejection> {
        auth::count_stranger(parts, &dialect.app).map(|()| Self)
    }
}

#[derive(Deserialize)]
pub(super) struct Guide {
    os: String,
}

pub(super) async fn setup_guide(
    State(dialect): State<Arc<Dialect>>,
    user: User,
    Path(id): Path<String>,
    Fields(Guide { os }): Fields<Guide>,
) -> Result<Json<Value>, Rejection> {
    let (node, kept) = seen(&dialect, &user, &id).await?;
    user.owner_or_creator(&node)?;
    if os != "ubuntu" {
        return Err(Rejection::field("os: must be ubuntu"));
    }
    let app = &dialect.app;
    let asked = Asked::of_node("aiwm.setup_guide", &node.id);
    let work = async |store: Store| {
        if node.status != NodeStatus::Pending || kept.awaits_approval {
            return Err(not_while(node.status.as_str(), "only pending"));
        }
        let (keys, deployment) = (&app.enroller.tokens, &app.enroller.deployment);
        let signed = tokens::sign_setup(keys, deployment, &node.id, clock::now());
        let (token, ends) = signed.map_err(|error| Rejection::fault(&error))?;
        if !store.put_setup_token(&node.id, fingerprint(&token)).await? {
            return Err(not_while("set up", "only pending"));
        }
        Ok(Json(json!({
            "os": os,
            "installCommand": format!("sudo aio-worker install --token {token}"),
            "instructions": [
                "Put the program aio-worker on the machine.",
                "Run the command there as root, before the token ends.",
                "The node is online as soon as its worker has registered.",
            ],
            "setupTokenExpiresAt": ends,
        })))
    };
    user.person.audited(app, asked, work).await
}

pub(super) async fn bootstrap(
    State(dialect): State<Arc<Dialect>>,
    _: Stranger,
    Fields(Bootstrap { setup_token: Hidden(setup_token) }): Fields<Bootstrap>,
) -> Result<Json<Bootstrapped>, Rejection> {
    let app = &dialect.app;
    let verified = tokens::verify_setup(&app.enroller.tokens, &setup_token, clock::now());
    let id = verified.map_err(refused_token)?;
    let node = app.store.node(&id).await?.filter(|node| node.status != NodeStatus::Inactive);
    let node = node.ok_or_else(|| Rejection::no_node(id.as_str()))?;
    let setup_sha256 = fingerprint(&setup_token);
    let used = || {
        Rejection::unauthorized(
            ErrorCode::TokenInvalid,
            "the setup token was used, or another took its place",
        )
    };
    if app.store.aiwm_node(&id).await?.setup_sha256.as_deref() != Some(setup_sha256.as_str()) {
        return Err(used());
    }
    if node.status != NodeStatus::Pending {
        let message = format!("a node that is {} is not set up", node.status);
        return Err(Rejection::forbidden(ErrorCode::Forbidden, message));
    }
    let secret = uuid::Uuid::new_v4().to_string();
    let saving =
        WithSecret { setup_sha256, secret_sha256: fingerprint(&secret), refused: AtomicBool::new(false) };
    let turn = app.lifecycle.turn(&id).await;
    let started = Occurrence::Reported(InstallationReport::Started { version: None });
    match turn.apply_saving(&started, &format!("node:{id}"), &saving).await {
        Ok(_) => {}
        Err(_) if saving.refused.load(Ordering::Relaxed) => return Err(used()),
        Err(LifecycleError::Refused { status, .. }) => {
            let message = format!("a node that is {status} is not set up");
            return Err(Rejection::forbidden(ErrorCode::Forbidden, message));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Json(Bootstrapped { node_id: id.clone(), secret: Hidden(secret), warning: Some(ONCE.into()) }))
}

/// Keeps a node with the secret that its setup token is taken for.
struct WithSecret {
    setup_sha256: String,
    secret_sha256: String,
    refused: AtomicBool,
}

impl Saving for WithSecret {
    async fn save(&self, store: &Store, node: &Node, steps: &[RecordedStep]) -> Result<bool, StoreError> {
        match store.bootstrap(node, steps, &self.setup_sha256, &self.secret_sha256).await? {
            SecretKept::Done => Ok(true),
            SecretKept::Outdated => Ok(false),
            SecretKept::Refused => {
                self.refused.store(true, Ordering::Relaxed);
                // The caller sees the mark, and gives up.
                Err(StoreError::RolledBack)
            }
        }
    }
}

pub(super) async fn login(
    State(dialect): State<Arc<Dialect>>,
    _: Stranger,
    Fields(Login { id, api_key, secret: Hidden(secret) }): Fields<Login>,
) -> Result<Json<LoggedIn>, Rejection> {
    let app = &dialect.app;
    let wrong = || Rejection::unauthorized(ErrorCode::TokenInvalid, "the id or the secret is wrong");
    let id = id.or(api_key.map(|Hidden(key)| key)).ok_or_else(|| Rejection::field("id: is missing"))?;
    let id: NodeId = id.parse().map_err(|_| wrong())?;
    let kept = app.store.aiwm_node(&id).await?;
    if kept.secret_sha256.as_deref() != Some(fingerprint(&secret).as_str()) {
        return Err(wrong());
    }
    let node = in_service(app, &id).await?.ok_or_else(wrong)?;
    let known = LoggedInNode {
        id: node.id.to_string(),
        name: node.name.clone(),
        status: node.status.as_str().into(),
        roles: node.role.iter().map(|role| role.as_str().to_owned()).collect(),
        org_id: Some(node.owner.org_id.to_string()),
    };
    Ok(Json(LoggedIn { node: Some(known), ..token_of(&dialect, &node)? }))
}

pub(super) async fn refresh(
    State(dialect): State<Arc<Dialect>>,
    _: Stranger,
    Fields(Refresh { token: Hidden(token) }): Fields<Refresh>,
) -> Result<Json<LoggedIn>, Rejection> {
    let app = &dialect.app;
    let verified = tokens::verify_node(&app.enroller.tokens, &token, REFRESH_GRACE, clock::now());
    let verified = verified.map_err(refused_token)?;
    let node = in_service(app, &verified.node).await?.filter(|node| !verified.is_revoked(node));
    let node = node.ok_or_else(|| refused_token(Unusable::Invalid))?;
    token_of(&dialect, &node).map(Json)
}

pub(super) async fn regenerate(
    State(dialect): State<Arc<Dialect>>,
    user: User,
    Path(id): Path<String>,
) -> Result<Json<Value>, Rejection> {
    let (node, _) = seen(&dialect, &user, &id).await?;
    user.owner_or_creator(&node)?;
    let (app, id) = (&dialect.app, node.id.clone());
    let work = async |store: Store| {
        let secret = uuid::Uuid::new_v4().to_string();
        if !matches!(node.status, NodeStatus::Online | NodeStatus::Offline)
            || !store.replace_secret(&id, fingerprint(&secret), clock::now()).await?
        {
            return Err(not_while(node.status.as_str(), "only online and offline, once it is set up"));
        }
        let turn = app.lifecycle.turn(&id).await;
        app.registry.close(&id, close::TOKEN_ENDED);
        let left = Occurrence::Left { reason: REGENERATED };
        turn.apply(&left, &user.person.actor()).await?;
        Ok(Json(json!({
            "nodeId": id, "credentials": { "secret": secret }, "warning": ONCE, "affectedStatus": node.status,
        })))
    };
    user.person.audited(app, Asked::of_node("aiwm.regenerate_credentials", &node.id), work).await
}

async fn in_service(app: &App, id: &NodeId) -> Result<Option<Node>, Rejection> {
    Ok(app.store.node(id).await?.filter(|node| node.status != NodeStatus::Inactive))
}

fn token_of(dialect: &Dialect, node: &Node) -> Result<LoggedIn, Rejection> {
    let now = clock::now();
    let made_at = dialect.double.as_ref().map_or(now, |double| double.faults().made_at(&node.id, now));
    let token = tokens::sign_node(&dialect.app.enroller.tokens, node, made_at);
    Ok(LoggedIn {
        access_token: Hidden(token.map_err(|error| Rejection::fault(&error))?),
        expires_in: NODE_LIFE_SECS,
        token_type: "Bearer".into(),
        node: None,
    })
}

fn refused_token(refusal: Unusable) -> Rejection {
    match refusal {
        Unusable::Invalid => Rejection::unauthorized(ErrorCode::TokenInvalid, "the token opens nothing here"),
        Unusable::Expired => Rejection::unauthorized(ErrorCode::TokenExpired, "the token has expired"),
    }
}

/// The node of a request's token, for MONA.
pub(super) struct AsNode(pub Node);

impl FromRequestParts<Arc<Dialect>> for AsNode {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, dialect: &Arc<Dialect>) -> Result<Self, Rejection> {
        let app = &dialect.app;
        auth::count_stranger(parts, app)?;
        let token = auth::bearer(&parts.headers)?;
        let verified = tokens::verify_node(&app.enroller.tokens, token, Duration::ZERO, clock::now());
        let verified = verified.map_err(refused_token)?;
        let node = in_service(app, &verified.node).await?.filter(|node| !verified.is_revoked(node));
        node.map(Self).ok_or_else(|| refused_token(Unusable::Invalid))
    }
}
