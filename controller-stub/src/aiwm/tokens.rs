//! AIWM's tokens: the setup token, which opens the bootstrap once, and the node token, which opens the
//! gateway and MONA for an hour. Signed with the controller's secret (HS256). What kind a token is its `type`
//! says, so that none passes for another.

use std::time::Duration;

use aio_protocol::{ids::NodeId, time::Timestamp};
use serde::{Deserialize, Serialize};
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

/// The path that Socket.IO is served at.
pub(super) const SOCKET_PATH: &str = "/socket.io";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SetupClaims {
    sub: NodeId,
    #[serde(rename = "type")]
    kind: String,
    node_id: NodeId,
    bootstrap_url: String,
    api_base_url: String,
    ws_base_url: String,
    ws_path: String,
    mona_base_url: String,
    iat: i64,
    exp: i64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeClaims {
    sub: NodeId,
    #[serde(rename = "type")]
    kind: String,
    username: String,
    status: String,
    roles: Vec<aio_protocol::node::NodeRole>,
    org_id: String,
    iat: i64,
    exp: i64,
}

/// A node token that was signed here and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeToken {
    pub node: NodeId,
    pub issued_at: Timestamp,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
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
        sub: node.clone(),
        kind: "node-setup".into(),
        node_id: node.clone(),
        bootstrap_url: format!("{}/nodes/auth/bootstrap", deployment.api),
        api_base_url: deployment.api.clone(),
        ws_base_url: deployment.gateway(),
        ws_path: SOCKET_PATH.into(),
        mona_base_url: deployment.api.clone(),
        iat,
        exp: ends.as_millis() / 1000,
    };
    Ok((tokens.sign(&claims)?, ends))
}

/// The node of a setup token.
pub(super) fn verify_setup(tokens: &Tokens, token: &str, now: Timestamp) -> Result<NodeId, Refusal> {
    let claims: SetupClaims = read(tokens, token, "node-setup")?;
    if ended(claims.exp, Duration::ZERO, now) { Err(Refusal::Expired) } else { Ok(claims.node_id) }
}

/// A node token for an hour. Two of the same second are the same.
pub(super) fn sign_node(tokens: &Tokens, node: &Node, now: Timestamp) -> Result<String, Unsigned> {
    // A token of the second in which others were revoked would count as one of them.
    let iat = (now.as_millis() / 1000).max(node.tokens_not_before.as_millis() / 1000 + 1);
    tokens.sign(&NodeClaims {
        sub: node.id.clone(),
        kind: "node".into(),
        username: node.name.clone(),
        status: node.status.as_str().into(),
        roles: node.role.clone(),
        org_id: node.owner.org_id.to_string(),
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
) -> Result<NodeToken, Refusal> {
    let claims: NodeClaims = read(tokens, token, "node")?;
    if ended(claims.exp, grace, now) {
        return Err(Refusal::Expired);
    }
    Ok(NodeToken { node: claims.sub, issued_at: Timestamp::from_millis(claims.iat.saturating_mul(1000)) })
}

fn read<T: serde::de::DeserializeOwned>(tokens: &Tokens, token: &str, kind: &str) -> Result<T, Refusal> {
    let claims: Map<String, Value> = tokens.genuine(token).map_err(|_| Refusal::Invalid)?;
    // A node token of the own API has a `jti`, and is no token of this dialect.
    if claims.get("type").and_then(Value::as_str) != Some(kind) || claims.contains_key("jti") {
        return Err(Refusal::Invalid);
    }
    serde_json::from_value(Value::Object(claims)).map_err(|_| Refusal::Invalid)
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
        assert_eq!(verify(Duration::ZERO, 3600), Err(Refusal::Expired));
        assert!(verify(REFRESH_GRACE, 3600 + 290).is_ok());
        assert_eq!(verify(REFRESH_GRACE, 3600 + 310), Err(Refusal::Expired));
    }

    #[test]
    fn no_kind_of_token_passes_for_another() {
        let (tokens, now) = (Tokens::of_secret_for_tests(), crate::clock::now());
        let deployment = Deployment::new(&Config::new("data"), ([127, 0, 0, 1], 3305).into(), None);
        let (setup, ends) = sign_setup(&tokens, &deployment, &node().id, now).unwrap();
        let token = sign_node(&tokens, &node(), now).unwrap();
        assert_eq!(verify_setup(&tokens, &setup, now), Ok(node().id));
        assert_eq!(verify_setup(&tokens, &setup, ends), Err(Refusal::Expired));
        assert_eq!(verify_node(&tokens, &setup, Duration::ZERO, now), Err(Refusal::Invalid));
        assert_eq!(verify_setup(&tokens, &token, now), Err(Refusal::Invalid));
        for ours in [setup, token] {
            assert!(tokens.verify(&ours).is_err(), "the own API takes neither");
        }
        let own = crate::tokens::node_claims(&node().id, "http://a", "ws://a", None, None, now, 60);
        let own = tokens.sign_node(&own).unwrap();
        assert_eq!(verify_node(&tokens, &own, Duration::ZERO, now), Err(Refusal::Invalid));
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
