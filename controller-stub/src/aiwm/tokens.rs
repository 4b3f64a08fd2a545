//! AIWM's tokens: the setup token, which opens the bootstrap once, and the node token, which opens the
//! gateway and MONA for an hour. Signed with the controller's secret (HS256). What kind a token is its `type`
//! says, so that none passes for another.

use std::time::Duration;

use aio_protocol::{
    aiwm::{
        rest::path,
        setup::{NodeTokenClaims, SetupClaims, SetupTokenKind},
    },
    claims::NodeTokenKind,
    ids::NodeId,
    time::Timestamp,
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    deployment::Deployment,
    node::Node,
    tokens::{Tokens, Unsigned},
};

/// A setup token lasts this long.
const SETUP_LIFE: Duration = Duration::from_secs(24 * 3600);

/// A node token lasts this long.
pub(super) const NODE_LIFE_SECS: u64 = 3600;

/// For so long behind its end a node token can be exchanged for another.
pub(super) const REFRESH_GRACE: Duration = Duration::from_secs(300);

/// The path that Socket.IO is served at, as setup tokens name it.
pub(super) const SERVED_AT: &str = "/socket.io";

/// The claims of a setup token, and the one that whoever reads it has no use for.
#[derive(Serialize)]
struct Subject<'a> {
    sub: &'a NodeId,
    #[serde(flatten)]
    claims: &'a SetupClaims,
}

/// A node token that was signed here and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeToken {
    pub node: NodeId,
    pub issued_at: Timestamp,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    Invalid,
    Expired,
}

impl NodeToken {
    /// Whether it was made before the node's tokens were revoked.
    pub(super) fn is_revoked(&self, node: &Node) -> bool {
        self.issued_at <= node.tokens_not_before
    }
}

/// A new setup token of a node, and when it ends.
pub(super) fn sign_setup(
    tokens: &Tokens,
    deployment: &Deployment,
    node: &NodeId,
    now: Timestamp,
) -> Result<(String, Timestamp), Unsigned> {
    let iat = now.as_millis() / 1000;
    let ends = Timestamp::from_millis(iat * 1000).plus(SETUP_LIFE);
    let claims = SetupClaims {
        kind: SetupTokenKind::NodeSetup,
        node_id: node.clone(),
        bootstrap_url: Some(format!("{}{}", deployment.api, path::BOOTSTRAP)),
        api_base_url: deployment.api.clone(),
        ws_base_url: Some(deployment.gateway()),
        ws_path: Some(SERVED_AT.into()),
        mona_base_url: Some(deployment.api.clone()),
        iat,
        exp: ends.as_millis() / 1000,
    };
    Ok((tokens.sign(&Subject { sub: node, claims: &claims })?, ends))
}

/// The node of a setup token.
pub(super) fn verify_setup(tokens: &Tokens, token: &str, now: Timestamp) -> Result<NodeId, Unusable> {
    let claims: SetupClaims = read(tokens, token, "node-setup")?;
    if ended(claims.exp, Duration::ZERO, now) { Err(Unusable::Expired) } else { Ok(claims.node_id) }
}

/// A node token for an hour. Two of the same second are the same.
pub(super) fn sign_node(tokens: &Tokens, node: &Node, now: Timestamp) -> Result<String, Unsigned> {
    // A token of the second in which others were revoked would count as one of them.
    let iat = (now.as_millis() / 1000).max(node.tokens_not_before.as_millis() / 1000 + 1);
    tokens.sign(&NodeTokenClaims {
        sub: node.id.clone(),
        kind: NodeTokenKind::Node,
        username: Some(node.name.clone()),
        status: Some(node.status.as_str().into()),
        roles: node.role.iter().map(|role| role.as_str().to_owned()).collect(),
        org_id: Some(node.owner.org_id.to_string()),
        iat,
        exp: iat.saturating_add_unsigned(NODE_LIFE_SECS),
    })
}

/// Verifies a node token that may have ended up to `grace` ago.
pub(super) fn verify_node(
    tokens: &Tokens,
    token: &str,
    grace: Duration,
    now: Timestamp,
) -> Result<NodeToken, Unusable> {
    let claims: NodeTokenClaims = read(tokens, token, "node")?;
    if ended(claims.exp, grace, now) {
        return Err(Unusable::Expired);
    }
    Ok(NodeToken { node: claims.sub, issued_at: Timestamp::from_millis(claims.iat.saturating_mul(1000)) })
}

fn read<T: serde::de::DeserializeOwned>(tokens: &Tokens, token: &str, kind: &str) -> Result<T, Unusable> {
    let claims: Map<String, Value> = tokens.genuine(token).map_err(|_| Unusable::Invalid)?;
    // A node token of the own API has a `jti`, and is no token of this dialect.
    if claims.get("type").and_then(Value::as_str) != Some(kind) || claims.contains_key("jti") {
        return Err(Unusable::Invalid);
    }
    serde_json::from_value(Value::Object(claims)).map_err(|_| Unusable::Invalid)
}

fn ended(exp: i64, grace: Duration, now: Timestamp) -> bool {
    Timestamp::from_millis(exp.saturating_mul(1000)).plus(grace) <= now
}

#[cfg(test)]
mod tests {
    use aio_protocol::node::{NodeRole, Owner};

    use super::*;
    use crate::config::Config;

    fn node() -> Node {
        let owner = Owner { org_id: "acme".parse().unwrap(), user_id: "someone".parse().unwrap() };
        let noon = Timestamp::from_millis(1_765_454_400_000);
        Node::registered(NodeId::from_bytes([7; 12]), "gpu-01".into(), vec![NodeRole::Worker], owner, noon)
    }

    fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_node_token_has_the_claims_of_the_contract_and_no_others() {
        let tokens = Tokens::of_secret_for_tests();
        let now = Timestamp::from_millis(1_765_454_400_500);
        let token = sign_node(&tokens, &node(), now).unwrap();
        let claims = tokens.genuine(&token).unwrap();
        let names: Vec<_> = claims.keys().map(String::as_str).collect();
        assert_eq!(names, ["exp", "iat", "orgId", "roles", "status", "sub", "type", "username"]);
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
        assert_eq!(token, sign_node(&tokens, &node(), now.plus(Duration::from_millis(400))).unwrap());
    }

    #[test]
    fn a_node_token_is_exchanged_for_290_s_behind_its_end_and_not_for_310() {
        let tokens = Tokens::of_secret_for_tests();
        let now = Timestamp::from_millis(1_765_454_400_000);
        let token = sign_node(&tokens, &node(), now).unwrap();
        let verify = |grace, after| verify_node(&tokens, &token, grace, now.plus(secs(after)));
        assert!(verify(Duration::ZERO, 3599).is_ok());
        assert_eq!(verify(Duration::ZERO, 3600), Err(Unusable::Expired));
        assert!(verify(REFRESH_GRACE, 3600 + 290).is_ok());
        assert_eq!(verify(REFRESH_GRACE, 3600 + 310), Err(Unusable::Expired));
    }

    #[test]
    fn no_kind_of_token_passes_for_another() {
        let (tokens, now) = (Tokens::of_secret_for_tests(), crate::clock::now());
        let deployment = Deployment::new(&Config::new("data"), ([127, 0, 0, 1], 3305).into(), None);
        let (setup, ends) = sign_setup(&tokens, &deployment, &node().id, now).unwrap();
        let token = sign_node(&tokens, &node(), now).unwrap();
        assert_eq!(verify_setup(&tokens, &setup, now), Ok(node().id));
        assert_eq!(verify_setup(&tokens, &setup, ends), Err(Unusable::Expired));
        assert_eq!(verify_node(&tokens, &setup, Duration::ZERO, now), Err(Unusable::Invalid));
        assert_eq!(verify_setup(&tokens, &token, now), Err(Unusable::Invalid));
        for ours in [setup, token] {
            assert!(tokens.verify(&ours).is_err(), "the own API takes neither");
        }
        let own = crate::tokens::node_claims(&node().id, "http://a", "ws://a", None, None, now, 60);
        let own = tokens.sign_node(&own).unwrap();
        assert_eq!(verify_node(&tokens, &own, Duration::ZERO, now), Err(Unusable::Invalid));
    }

    #[test]
    fn a_token_that_is_made_in_the_second_of_a_revocation_is_not_revoked() {
        let (tokens, now) = (Tokens::of_secret_for_tests(), Timestamp::from_millis(1_765_454_400_100));
        let mut node = node();
        let before = sign_node(&tokens, &node, now).unwrap();
        node.tokens_not_before = now.plus(Duration::from_millis(300));
        let after = sign_node(&tokens, &node, now.plus(Duration::from_millis(600))).unwrap();
        let revoked =
            |token: &str| verify_node(&tokens, token, Duration::ZERO, now).unwrap().is_revoked(&node);
        assert!(revoked(&before) && !revoked(&after));
    }
}
