//! Who may join `/ws/node`: whoever shows a node token that was made here, has not ended and was not revoked.
//! A bad token is told as a refusal to join, and the connection stays open; a node that is gone is told after
//! the join, as AIWM does.

use std::{sync::Arc, time::Duration};

use aio_protocol::{
    aiwm::{
        NAMESPACE,
        controller::{ConnectionAck, Refusal},
        event,
    },
    ids::NodeId,
    node::NodeStatus,
    time::Timestamp,
};
use axum::http::{HeaderMap, Uri, header};
use serde::Deserialize;
use serde_json::Value;
use socketioxide::extract::SocketRef;
use tokio::time::sleep;

use super::super::{
    dialect::Dialect,
    double::faults::{self, Place},
    sockets::{self, link::Link},
    tokens::{Unusable, verify_node},
};
use crate::{clock, gateway::admission::Handshake, store::StoreError};

/// How long a join waits where more workers connect than the controller takes at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a peer shows when it joins.
#[derive(Default, Deserialize)]
pub(super) struct Auth {
    #[serde(default)]
    token: Value,
}

/// What a peer is told that may not join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotJoined {
    Missing,
    Invalid,
    Expired,
    /// More workers connect than the controller takes at once. AIWM has no such limit.
    TooMany,
    Fault,
}

impl std::fmt::Display for NotJoined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "TOKEN_MISSING",
            Self::Invalid => "TOKEN_INVALID",
            Self::Expired => "TOKEN_EXPIRED",
            Self::TooMany => "RATE_LIMITED",
            Self::Fault => "INTERNAL_ERROR",
        })
    }
}

/// Who joined.
pub(super) enum Found {
    Worker(NodeId, Box<Admitted>),
    /// Who is told so, and sent away.
    Refused(Refused),
}

/// What a connection needs only until its worker has registered.
pub(super) struct Admitted {
    pub _handshake: Handshake,
    /// The node's `tokens_not_before` when the token was accepted.
    pub not_before: Timestamp,
    pub set_aside: bool,
}

/// Why a worker that joined is sent away at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Gone,
    /// Only a double says so.
    Inactive,
    Fault,
}

impl Refused {
    /// The `connection.ack` that says so.
    pub(super) fn acknowledgement(self, now: Timestamp) -> ConnectionAck {
        let (code, message) = match self {
            Self::Gone => (Refusal::NODE_GONE, "Node not found"),
            Self::Inactive => (Refusal::NODE_INACTIVE, "Node is inactive"),
            Self::Fault => (Refusal::INTERNAL_ERROR, "Internal error"),
        };
        let error = Refusal { code: code.into(), message: message.into(), timestamp: Some(now) };
        ConnectionAck {
            kind: event::CONNECTION_ACK.into(),
            message_id: uuid::Uuid::now_v7().to_string(),
            timestamp: Some(now),
            status: "error".into(),
            error: Some(error),
            ..ConnectionAck::default()
        }
    }
}

/// Lets a peer join, or says why not.
pub(super) async fn admit(dialect: &Dialect, socket: &SocketRef, auth: Auth) -> Result<(), NotJoined> {
    let link = sockets::link(socket).ok_or(NotJoined::Fault)?;
    let parts = socket.req_parts();
    let token = auth.shown(&parts.headers, &parts.uri).ok_or(NotJoined::Missing)?;
    judge(dialect, &link, &token).await.inspect_err(|why| {
        metrics::counter!("aio_gateway_refusals_total", "reason" => why.to_string()).increment(1);
    })
}

async fn judge(dialect: &Dialect, link: &Arc<Link>, token: &str) -> Result<(), NotJoined> {
    let app = &dialect.app;
    let verified = verify_node(&app.enroller.tokens, token, Duration::ZERO, clock::now());
    let token = verified.map_err(|refusal| match refusal {
        Unusable::Invalid => NotJoined::Invalid,
        Unusable::Expired => NotJoined::Expired,
    })?;
    if let Some(double) = &dialect.double {
        double.note_join(&token.node, link);
        let late = double.faults().delay(Some(&token.node), Place::Join);
        if let Some(late) = late {
            sleep(late).await;
        }
        if double.faults().is_expired(&token.node, token.issued_at) {
            return Err(NotJoined::Expired);
        }
        let refusal = double.faults().refuse(&token.node);
        if let Some(refused) = refusal.map(ordered).transpose()? {
            link.join(NAMESPACE, Box::new(Found::Refused(refused)));
            return Ok(());
        }
    }
    // A refusal to join is final for AIWM's own clients.
    let handshake = app.admission.begin_within(PATIENCE).await.map_err(|_| NotJoined::TooMany)?;
    let failed = |error: StoreError| {
        tracing::warn!(error = &error as &dyn std::error::Error, "a worker's token could not be looked up");
        NotJoined::Fault
    };
    let node = app.store.node(&token.node).await.map_err(failed)?;
    let found = match node {
        Some(node) if node.status == NodeStatus::Inactive => Found::Refused(Refused::Gone),
        None => Found::Refused(Refused::Gone),
        Some(node) if token.is_revoked(&node) => return Err(NotJoined::Invalid),
        Some(node) => {
            let set_aside = node.status == NodeStatus::Maintenance;
            let admitted = Admitted { _handshake: handshake, not_before: node.tokens_not_before, set_aside };
            Found::Worker(node.id, Box::new(admitted))
        }
    };
    link.join(NAMESPACE, Box::new(found));
    Ok(())
}

/// A refusal that a test has ordered.
fn ordered(refusal: faults::Refusal) -> Result<Refused, NotJoined> {
    match refusal {
        faults::Refusal::TokenMissing => Err(NotJoined::Missing),
        faults::Refusal::TokenInvalid => Err(NotJoined::Invalid),
        faults::Refusal::TokenExpired => Err(NotJoined::Expired),
        faults::Refusal::NodeGone => Ok(Refused::Gone),
        faults::Refusal::NodeInactive => Ok(Refused::Inactive),
        faults::Refusal::InternalError => Ok(Refused::Fault),
    }
}

impl Auth {
    /// The token of the join, of the request's header, or of its query.
    pub(super) fn shown(self, headers: &HeaderMap, uri: &Uri) -> Option<String> {
        let joined = match self.token {
            Value::String(token) => Some(token),
            _ => None,
        };
        let bearer = || {
            let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        };
        let query = || {
            let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(name, _)| *name == "token").map(|(_, token)| token.to_owned()).next()
        };
        let given = joined.filter(|token| !token.is_empty()).or_else(bearer).or_else(query);
        given.filter(|token| !token.is_empty())
    }
}
