//! Makes offers of tokens, and notes what becomes of them. `rotation` says when.

use std::net::IpAddr;

use aio_protocol::{
    error_code::ErrorCode, event::ErrorReport, ids::NodeId, text, time::Timestamp, wire::TokenOffer,
};
use metrics::counter;
use uuid::Uuid;

use super::Life;
use crate::{
    clock,
    enrolment::{Enroller, EnrolmentError},
    node::Node,
    store::{AuditEntry, Replacement, Store, StoreError},
};

/// The longest reason of a rejected offer that is kept.
const MAX_REJECTION_BYTES: usize = 200;

/// The token that a connection was opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InUse {
    pub jti: String,
    pub life: Life,
    /// Whether it is an offer that its worker has now come with.
    pub offered: bool,
}

/// Whether there is an offer now.
pub(crate) enum Next {
    /// This one; its message's id is the token's, so that an answer tells which it means, whatever
    /// restarted meanwhile.
    Offer { message_id: Uuid, offer: TokenOffer },
    /// None before then.
    NotBefore(Timestamp),
    /// The token in use was revoked: its worker is offered nothing.
    Revoked,
}

/// Offers the node's worker a new token in place of the one in use, if it is time.
pub(crate) async fn next(
    enroller: &Enroller,
    node: &NodeId,
    in_use: &InUse,
    now: Timestamp,
) -> Result<Next, EnrolmentError> {
    let due = in_use.life.next_offer(enroller.store.offers_for(&in_use.jti).await?, now);
    if due > now {
        return Ok(Next::NotBefore(due));
    }
    let (token, issued) = enroller.renew(node, &in_use.jti, in_use.life.length(), now).await?;
    let (jti, expires_at) = (issued.jti.clone(), issued.expires_at);
    let replacement =
        Replacement { issued, replaces: in_use.jti.clone(), replaced_issued_at: in_use.life.issued_at };
    if !enroller.store.offer_token(replacement).await? {
        return Ok(Next::Revoked);
    }
    count("made");
    tracing::info!(%node, offer = jti, "a new token is offered, because the one in use ends soon");
    let message_id = jti.parse().unwrap_or_default();
    let offer = TokenOffer { token, expires_at, offer_id: jti };
    Ok(Next::Offer { message_id, offer })
}

/// Notes that the node's worker was welcomed with the offered token, and revokes the one that it
/// replaces. Says whether the offer still stood.
pub(crate) async fn take(
    store: &Store,
    node: &NodeId,
    jti: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let taken = store.take_offer(jti, now).await?;
    if taken {
        count("taken");
        tracing::info!(%node, offer = jti, "the worker uses its new token, and the one before is revoked");
    }
    Ok(taken)
}

/// Notes that the node's worker rejected an offer.
pub(crate) async fn reject(
    store: &Store,
    node: &NodeId,
    offer: Uuid,
    error: Option<&ErrorReport>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let reason = error.map_or_else(String::new, |it| format!("{}: {}", it.code, it.message));
    let reason = text::clean(&reason, MAX_REJECTION_BYTES);
    if store.reject_offer(node, &offer.to_string(), &reason, now).await? {
        count("rejected");
        tracing::warn!(%node, %offer, reason, "the worker rejected its new token; it will be offered another");
    }
    Ok(())
}

/// Raises the alarm when a token comes back whose place a newer one has taken: somebody has a copy
/// of it (RFC 9700, section 4.14). Says whether it does.
pub(crate) async fn note_reuse(
    store: &Store,
    node: &Node,
    jti: &str,
    address: IpAddr,
) -> Result<bool, StoreError> {
    if !store.was_replaced(&node.id, jti).await? {
        return Ok(false);
    }
    tracing::warn!(node = %node.id, name = node.name, token = jti, %address, "a token that was replaced was shown again: somebody has a copy of it; revoke the node's tokens if it is not the node itself");
    let entry = AuditEntry {
        at: clock::now(),
        org: node.owner.org_id.clone(),
        actor: format!("node:{}", node.id),
        roles: Vec::new(),
        address: Some(address),
        action: "token.reuse",
        node: Some(node.id.clone()),
        target: Some(jti.to_owned()),
        detail: None,
    };
    if let Err(error) = store.on_behalf(entry).record_outcome(ErrorCode::TokenRevoked.as_str()).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the reuse of a token could not be recorded"
        );
    }
    Ok(true)
}

fn count(outcome: &'static str) {
    counter!("aio_token_offers_total", "outcome" => outcome).increment(1);
}
