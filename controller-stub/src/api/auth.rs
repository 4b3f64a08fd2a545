//! Who asks: users with a user token, nodes with a node token. A user sees only their organisation's nodes, a node only itself.

use std::{net::IpAddr, ops::Deref, sync::Arc};

use aio_protocol::{
    claims::{NodeClaims, UserClaims},
    error_code::ErrorCode,
    ids::NodeId,
    node::NodeStatus,
};
use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};

use super::{
    client,
    error::Rejection,
    limit::Client,
    roles::{self, Permission},
};
use crate::{
    app::App,
    node::Node,
    rotation::{Life, offers::InUse},
    store::Admission,
    tokens::Bearer,
};

/// A user who may look.
pub(crate) struct AsUser(pub UserClaims);

/// A user who may change things.
pub(crate) struct AsManager(pub Person);

/// A user who may decide what concerns every organisation.
pub(crate) struct AsOperator(pub Person);

/// A user, and from where they ask.
pub(crate) struct Person {
    pub user: UserClaims,
    pub address: IpAddr,
}

/// A worker or an installer, and the node that its token speaks for.
pub(crate) struct AsNode(pub NodeOfToken);

/// The node of a token that was accepted.
pub(crate) struct NodeOfToken {
    pub id: NodeId,
    pub token: InUse,
    pub node: Node,
}

/// Either of the two.
pub(crate) enum AsAnyone {
    User(UserClaims),
    Node(Box<NodeOfToken>),
}

/// The token of the Authorization header.
pub(super) fn bearer(parts: &Parts) -> Result<&str, Rejection> {
    let missing =
        || Rejection::unauthorized(ErrorCode::TokenMissing, "send Authorization: Bearer and a token");
    let value = parts.headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() { Ok(token) } else { Err(missing()) }
}

/// A node token that was verified is accepted unless it was withdrawn or its node is gone.
async fn accept(app: &App, claims: NodeClaims) -> Result<NodeOfToken, Rejection> {
    let known = app.store.admission(&claims.sub, &claims.jti).await?;
    let Admission { node, revoked, offered } =
        known.ok_or_else(|| Rejection::no_node(claims.sub.as_str()))?;
    if node.status == NodeStatus::Inactive {
        let message = format!("node {} was decommissioned", node.id);
        return Err(Rejection::forbidden(ErrorCode::NodeInactive, message));
    }
    // One that another issuer made with our key is unknown here, and stands unless all of the node's were withdrawn since.
    if revoked.unwrap_or_else(|| claims.issued_at() <= node.tokens_not_before) {
        return Err(Rejection::unauthorized(ErrorCode::TokenRevoked, "the token was withdrawn"));
    }
    let life = Life { issued_at: claims.issued_at(), expires_at: claims.expires_at() };
    let token = InUse { jti: claims.jti, life, offered };
    Ok(NodeOfToken { id: claims.sub, token, node })
}

fn bearer_of(parts: &Parts, app: &App) -> Result<Bearer, Rejection> {
    let verified = bearer(parts).and_then(|token| Ok(app.enroller.tokens.verify(token)?));
    if let Some(limit) = &app.request_limit {
        limit.admit(match &verified {
            Ok(Bearer::User(user)) => Client::User(user.org_id.clone(), user.sub.clone()),
            Ok(Bearer::Node(node)) => Client::Node(node.sub.clone()),
            Err(_) => Client::Stranger(client::address(parts, &app.trusted_proxies)),
        })?;
    }
    verified
}

fn permitted(user: UserClaims, permission: Permission) -> Result<UserClaims, Rejection> {
    if roles::allow(&user.roles, permission) {
        return Ok(user);
    }
    let message = format!("this takes one of the roles {}", roles::that_allow(permission).join(", "));
    Err(Rejection::forbidden(ErrorCode::Forbidden, message))
}

fn user_who_may(permission: Permission, parts: &Parts, app: &App) -> Result<UserClaims, Rejection> {
    match bearer_of(parts, app)? {
        Bearer::User(user) => permitted(user, permission),
        Bearer::Node(_) => {
            Err(Rejection::forbidden(ErrorCode::Forbidden, "this takes a user's token, not a node's"))
        }
    }
}

fn person_who_may(permission: Permission, parts: &Parts, app: &App) -> Result<Person, Rejection> {
    let user = user_who_may(permission, parts, app)?;
    Ok(Person { user, address: client::address(parts, &app.trusted_proxies) })
}

impl Deref for Person {
    type Target = UserClaims;

    fn deref(&self) -> &UserClaims {
        &self.user
    }
}

impl FromRequestParts<Arc<App>> for AsUser {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        user_who_may(Permission::See, parts, app).map(Self)
    }
}

impl FromRequestParts<Arc<App>> for AsManager {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        person_who_may(Permission::Manage, parts, app).map(Self)
    }
}

impl FromRequestParts<Arc<App>> for AsOperator {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        person_who_may(Permission::Operate, parts, app).map(Self)
    }
}

impl FromRequestParts<Arc<App>> for AsNode {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        match bearer_of(parts, app)? {
            Bearer::Node(claims) => Ok(Self(accept(app, claims).await?)),
            Bearer::User(_) => Err(Rejection::unauthorized(
                ErrorCode::TokenInvalid,
                "this takes a node's token, not a user's",
            )),
        }
    }
}

impl FromRequestParts<Arc<App>> for AsAnyone {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        match bearer_of(parts, app)? {
            Bearer::User(user) => permitted(user, Permission::See).map(Self::User),
            Bearer::Node(claims) => Ok(Self::Node(Box::new(accept(app, claims).await?))),
        }
    }
}

impl NodeOfToken {
    /// Refuses a path that names another node than the token does.
    pub(super) fn speaks_for(self, id: &NodeId) -> Result<Self, Rejection> {
        if self.id == *id {
            return Ok(self);
        }
        let message = format!("the token is node {}'s and opens nothing of node {id}", self.id);
        Err(Rejection::forbidden(ErrorCode::TokenForeign, message))
    }
}

/// The node `id` as this user sees it. Another organisation's does not exist for them.
pub(super) async fn node_of_user(app: &App, user: &UserClaims, id: &NodeId) -> Result<Node, Rejection> {
    let node = app.store.node(id).await?.filter(|node| node.owner.org_id == user.org_id);
    node.ok_or_else(|| Rejection::no_node(id.as_str()))
}
