//! `/nodes/…`: registering, approving, setting aside and removing, by AIWM's rules. What happens to a node is
//! the status machine's to decide where AIWM has no rule of its own.

use std::sync::Arc;

use aio_protocol::{
    error_code::ErrorCode,
    ids::NodeId,
    node::{NodeRole, NodeStatus, Owner},
    wire::close,
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    dialect::Dialect,
    document::{AWAITING_APPROVAL, Document, status_of},
    fields::Fields,
    users::{Rank, User},
};
use crate::{
    api::{audit::Asked, error::Rejection},
    clock,
    lifecycle::Occurrence,
    node::{Node, NodeName},
    random,
    store::{AiwmNode, Store},
};

#[derive(Deserialize)]
pub(super) struct Registration {
    name: NodeName,
    role: Vec<NodeRole>,
}

pub(super) async fn register(
    State(dialect): State<Arc<Dialect>>,
    user: User,
    Fields(Registration { name, role }): Fields<Registration>,
) -> Result<(StatusCode, Json<Document>), Rejection> {
    user.at_least(Rank::Editor)?;
    if role.is_empty() {
        return Err(Rejection::field("role: must name at least one of controller, worker, proxy, storage"));
    }
    if user.rank < Rank::Owner && role.iter().any(|role| *role != NodeRole::Worker) {
        return Err(Rejection::forbidden(ErrorCode::Forbidden, "an editor registers workers alone"));
    }
    let app = &dialect.app;
    let (now, actor) = (clock::now(), user.person.actor());
    let owner = Owner { org_id: user.person.org_id.clone(), user_id: user.person.sub.clone() };
    let node = Node::registered(random::object_id(now)?, name.into(), role, owner, now);
    let awaits_approval = user.rank < Rank::Owner;
    if awaits_approval {
        // Before there is a node, so that at no time it looks as if it needed no approval.
        app.store.await_approval(&node.id).await?;
    }
    let asked = Asked {
        action: "node.register",
        node: None,
        target: Some(node.name.clone()),
        detail: Some(json!({ "role": node.role, "awaitsApproval": awaits_approval })),
    };
    let work = async |store: Store| {
        if !app.lifecycle.register(&store, &node, &actor).await? {
            return Err(Rejection::name_taken(&node.name));
        }
        Ok((StatusCode::CREATED, Json(Document::seen_now(app, node, awaits_approval))))
    };
    user.person.audited(app, asked, work).await
}

pub(super) async fn show(
    State(dialect): State<Arc<Dialect>>,
    user: User,
    Path(id): Path<String>,
) -> Result<Json<Document>, Rejection> {
    let (node, kept) = seen(&dialect, &user, &id).await?;
    Ok(Json(Document::seen_now(&dialect.app, node, kept.awaits_approval)))
}

pub(super) async fn approve(
    State(dialect): State<Arc<Dialect>>,
    user: User,
    Path(id): Path<String>,
) -> Result<Json<Document>, Rejection> {
    let (node, kept) = seen(&dialect, &user, &id).await?;
    user.at_least(Rank::Owner)?;
    let id = node.id.clone();
    let work = async |store: Store| {
        if !kept.awaits_approval || !store.approve(&id).await? {
            return Err(not_while(status_of(&node, false), &format!("only {AWAITING_APPROVAL}")));
        }
        Ok(Json(Document::seen_now(&dialect.app, node, false)))
    };
    user.person.audited(&dialect.app, Asked::of_node("node.approve", &id), work).await
}

pub(super) async fn set_aside(
    State(dialect): State<Arc<Dialect>>,
    user: User,
    Path(id): Path<String>,
) -> Result<Json<Document>, Rejection> {
    let (node, kept) = seen(&dialect, &user, &id).await?;
    user.owner_or_creator(&node)?;
    let (app, id) = (&dialect.app, node.id);
    let work = async |store: Store| {
        if node.status == NodeStatus::Maintenance {
            return Err(not_while(node.status.as_str(), "any other status"));
        }
        let turn = app.lifecycle.turn(&id).await.through(store);
        let node = turn.apply(&Occurrence::SetAside, &user.person.actor()).await?;
        // Its connection has to know: what its worker says next may undo it.
        app.registry.nudge(&id);
        Ok(Json(Document::seen_now(app, node, kept.awaits_approval)))
    };
    user.person.audited(app, Asked::of_node("node.maintenance", &id), work).await
}

pub(super) async fn remove(
    State(dialect): State<Arc<Dialect>>,
    user: User,
    Path(id): Path<String>,
) -> Result<Json<Value>, Rejection> {
    let app = &dialect.app;
    let id = dialect.id(&id)?;
    let known = app.store.node(&id).await?.filter(|node| node.owner.org_id == user.person.org_id);
    let node = known.ok_or_else(|| dialect.no_node(&id))?;
    if node.status == NodeStatus::Inactive {
        return Err(Rejection::no_node(id.as_str()));
    }
    user.owner_or_creator(&node)?;
    let work = async |store: Store| {
        if !matches!(node.status, NodeStatus::Maintenance | NodeStatus::Pending) {
            let allowed = format!("only maintenance, {AWAITING_APPROVAL} and pending");
            return Err(not_while(node.status.as_str(), &allowed));
        }
        let turn = app.lifecycle.turn(&id).await.through(store);
        turn.apply(&Occurrence::DecommissionRequested, &user.person.actor()).await?;
        app.registry.close(&id, close::TOKEN_ENDED);
        turn.disconnect().await?;
        Ok(Json(json!({ "message": format!("the node {} was removed", node.name) })))
    };
    user.person.audited(app, Asked::of_node("node.decommission", &id), work).await
}

/// The node of a path, if it is there and this user may look at it.
pub(super) async fn seen(dialect: &Dialect, user: &User, id: &str) -> Result<(Node, AiwmNode), Rejection> {
    let id: NodeId = dialect.id(id)?;
    let node = dialect.app.store.node(&id).await?;
    let is_seen =
        |node: &Node| node.owner.org_id == user.person.org_id && node.status != NodeStatus::Inactive;
    let node = node.filter(is_seen).ok_or_else(|| dialect.no_node(&id))?;
    let kept = dialect.app.store.aiwm_node(&id).await?;
    Ok((node, kept))
}

/// A node's status does not allow what was asked for.
pub(super) fn not_while(status: &str, allowed: &str) -> Rejection {
    let message = format!("a node that is {status} does not take this; {allowed}");
    Rejection::new(StatusCode::BAD_REQUEST, ErrorCode::TransitionRefused, message)
}
