//! Who asks: users with a user token, nodes with a node token. A user sees only their organisation's nodes, a
//! node only itself.

use std::{net::IpAddr, ops::Deref, sync::Arc};

use aio_protocol::{
    claims::{NodeClaims, UserClaims},
    error_code::ErrorCode,
    ids::NodeId,
    node::NodeStatus,
};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use metrics::counter;

use super::{
    client,
    error::Rejection,
    limit::Client,
    roles::{self, Permission},
};
use crate::{
    app::App,
    listener::{InFlight, holder::Holder},
    node::Node,
    rotation::{
        Life,
        offers::{self, InUse},
    },
    store::Admission,
    tokens::{Bearer, refused::Refusal},
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
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Rejection> {
    let missing =
        || Rejection::unauthorized(ErrorCode::TokenMissing, "send Authorization: Bearer and a token");
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() {
        return Err(Rejection::field("Authorization: must stand once"));
    }
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() { Ok(token) } else { Err(missing()) }
}

fn rejection(refusal: Refusal, claims: &NodeClaims) -> Rejection {
    match refusal {
        Refusal::Inactive => {
            let message = format!("node {} was decommissioned", claims.sub);
            Rejection::forbidden(ErrorCode::NodeInactive, message)
        }
        Refusal::Revoked => Rejection::unauthorized(ErrorCode::TokenRevoked, "the token was revoked"),
        Refusal::Replaced => {
            counter!("aio_token_reuse_total").increment(1);
            Rejection::unauthorized(ErrorCode::TokenRevoked, "a newer token has taken this one's place")
        }
    }
}

/// Accepts a node token that was verified, unless it was revoked or its node is gone. One that is
/// not accepted counts as a stranger's.
pub(crate) async fn accept(parts: &Parts, app: &App, claims: NodeClaims) -> Result<NodeOfToken, Rejection> {
    let Some(Admission { node, revoked, offered }) = app.store.admission(&claims.sub, &claims.jti).await?
    else {
        count_stranger(parts, app)?;
        return Err(Rejection::no_node(claims.sub.as_str()));
    };
    // A token that another issuer made with our key is unknown here, and stands unless all of the
    // node's were revoked since.
    let refusal = if node.status == NodeStatus::Inactive {
        Some(Refusal::Inactive)
    } else {
        let revoked = revoked.unwrap_or_else(|| claims.issued_at() <= node.tokens_not_before);
        let address = client::address(parts, &app.trusted_proxies);
        match revoked {
            false => None,
            true if offers::note_reuse(&app.store, &node, &claims.jti, address).await? => {
                Some(Refusal::Replaced)
            }
            true => Some(Refusal::Revoked),
        }
    };
    if let Some(refusal) = refusal {
        app.refused.put(&claims, refusal);
        count_stranger(parts, app)?;
        return Err(rejection(refusal, &claims));
    }
    assign(parts, app, Holder::Node(claims.sub.clone()))?;
    let life = Life { issued_at: claims.issued_at(), expires_at: claims.expires_at() };
    let token = InUse { jti: claims.jti, life, offered };
    Ok(NodeOfToken { id: claims.sub, token, node })
}

fn count(app: &App, client: Client) -> Result<(), Rejection> {
    app.request_limit.as_ref().map_or(Ok(()), |limit| limit.admit(client).map_err(Rejection::too_many))
}

/// Counts a request of somebody whose token is not accepted, or who has none.
pub(crate) fn count_stranger(parts: &Parts, app: &App) -> Result<(), Rejection> {
    count(app, Client::Stranger(client::address(parts, &app.trusted_proxies)))
}

/// Counts the connection and the answer for `holder`, who must have read enough of the answers before.
fn assign(parts: &Parts, app: &App, holder: Holder) -> Result<(), Rejection> {
    if !app.answers.is_open_to(&holder) {
        return Err(Rejection::unread());
    }
    if let Some(in_flight) = parts.extensions.get::<Arc<InFlight>>() {
        in_flight.assign(holder);
    }
    Ok(())
}

/// A user whose token was verified and counted already: an extension of the request.
#[derive(Clone)]
struct Counted(UserClaims);

/// The manager who sends this request, for whoever looks at it before its handler: it is counted once.
pub(super) async fn manager(parts: &mut Parts, app: &Arc<App>) -> Result<UserClaims, Rejection> {
    let AsManager(Person { user, .. }) = AsManager::from_request_parts(parts, app).await?;
    parts.extensions.insert(Counted(user.clone()));
    Ok(user)
}

/// Marks a request as one of `user`, who was verified and counted already: for whoever calls the API in this
/// process.
#[cfg(feature = "pages")]
pub(crate) fn assume(extensions: &mut axum::http::Extensions, user: UserClaims) {
    extensions.insert(Counted(user));
}

/// Whose token was shown, by its signature and its times.
fn bearer_of(parts: &Parts, app: &App) -> Result<Bearer, Rejection> {
    if let Some(Counted(user)) = parts.extensions.get() {
        return Ok(Bearer::User(user.clone()));
    }
    let verified = bearer(&parts.headers).and_then(|token| Ok(app.enroller.tokens.verify(token)?));
    counted(verified, parts, app)
}

/// Counts a request for whoever's token it showed, or for its address.
fn counted(verified: Result<Bearer, Rejection>, parts: &Parts, app: &App) -> Result<Bearer, Rejection> {
    match &verified {
        Ok(Bearer::User(user)) => {
            count(app, Client::User(user.org_id.clone(), user.sub.clone()))?;
            assign(parts, app, Holder::Organisation(user.org_id.clone()))?;
        }
        Ok(Bearer::Node(claims)) => match app.refused.get(claims) {
            Some(refusal) => {
                count_stranger(parts, app)?;
                return Err(rejection(refusal, claims));
            }
            None => count(app, Client::Token(claims.sub.clone(), claims.jti.clone()))?,
        },
        Err(_) => count_stranger(parts, app)?,
    }
    verified
}

/// The claims of a node's token, which is not accepted yet.
pub(crate) fn node_claims(parts: &Parts, app: &App) -> Result<NodeClaims, Rejection> {
    match bearer_of(parts, app)? {
        Bearer::Node(claims) => Ok(claims),
        Bearer::User(_) => {
            Err(Rejection::unauthorized(ErrorCode::TokenInvalid, "this takes a node's token, not a user's"))
        }
    }
}

/// The user of a request, whatever their roles.
pub(crate) fn person(parts: &Parts, app: &App) -> Result<Person, Rejection> {
    as_person(bearer_of(parts, app)?, parts, app)
}

/// The user of `token`, which came otherwise than in the Authorization header.
#[cfg(feature = "pages")]
pub(crate) fn person_of(token: &str, parts: &Parts, app: &App) -> Result<Person, Rejection> {
    let verified = app.enroller.tokens.verify(token).map_err(Rejection::from);
    as_person(counted(verified, parts, app)?, parts, app)
}

fn as_person(bearer: Bearer, parts: &Parts, app: &App) -> Result<Person, Rejection> {
    match bearer {
        Bearer::User(user) => Ok(Person { user, address: client::address(parts, &app.trusted_proxies) }),
        Bearer::Node(_) => {
            Err(Rejection::forbidden(ErrorCode::Forbidden, "this takes a user's token, not a node's"))
        }
    }
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
        let claims = node_claims(parts, app)?;
        accept(parts, app, claims).await.map(Self)
    }
}

impl FromRequestParts<Arc<App>> for AsAnyone {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Rejection> {
        match bearer_of(parts, app)? {
            Bearer::User(user) => permitted(user, Permission::See).map(Self::User),
            Bearer::Node(claims) => Ok(Self::Node(Box::new(accept(parts, app, claims).await?))),
        }
    }
}

impl NodeOfToken {
    /// Refuses a path that names another node than the token does.
    pub(super) fn speaks_for(self, id: &NodeId) -> Result<Self, Rejection> {
        if self.id == *id {
            return Ok(self);
        }
        let message = format!("the token is node {}'s and does not speak for node {id}", self.id);
        Err(Rejection::forbidden(ErrorCode::TokenForeign, message))
    }
}

/// The node `id` as this user sees it. Another organisation's does not exist for them.
pub(super) async fn node_of_user(app: &App, user: &UserClaims, id: &NodeId) -> Result<Node, Rejection> {
    let node = app.store.node(id).await?.filter(|node| node.owner.org_id == user.org_id);
    node.ok_or_else(|| Rejection::no_node(id.as_str()))
}
