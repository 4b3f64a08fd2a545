//! Tokens that end soon: the real worker exchanges them with the real controller, and nobody notices.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use aio_protocol::{claims::NodeClaims, node::NodeStatus};
use aio_tests::{
    artifacts::Artifacts,
    controller::{Controller, Settings},
    wait::wait_for,
    worker::Worker,
};
use anyhow::Result;
use serde_json::json;

/// The first offer comes after two thirds of it.
const LIFE_SECS: u64 = 6;
const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_worker_stays_online_through_two_rotations_and_the_tokens_before_open_nothing() -> Result<()> {
    let artifacts = Artifacts::release()?;
    let controller = Controller::start(&artifacts, &Settings::default())?;
    let node = controller.register("gpu-box-01")?.id;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let first = controller.signed(&controller.token(&node, &json!({}))?.token, |claims| {
        (claims["jti"], claims["iat"], claims["exp"]) =
            ("short-lived".into(), now.into(), (now + LIFE_SECS).into());
    })?;

    let worker = Worker::start(&artifacts, &first, &[])?;
    controller.wait_for_status(&node, NodeStatus::Online, SOON)?;
    let kept = worker.state_dir().join("token");
    let mut tokens = vec![first];
    while tokens.len() < 3 {
        let another = wait_for(
            "another token",
            SOON,
            || {
                Ok(fs::read_to_string(&kept)
                    .unwrap_or_default()
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned())
            },
            |token| !token.is_empty() && !tokens.contains(token),
        )?;
        assert_eq!(NodeClaims::read_unverified(&another)?.sub, node);
        tokens.push(another);
    }
    let refusals =
        tokens.iter().map(|token| controller.refusal_of(&node, token)).collect::<Result<Vec<_>>>()?;
    let revoked = |refusal: &Option<String>| refusal.as_deref() == Some("TOKEN_REVOKED");
    assert!(revoked(&refusals[0]) && revoked(&refusals[1]) && !revoked(&refusals[2]), "{refusals:?}");

    assert_eq!(controller.node(&node)?.status, NodeStatus::Online);
    let events = ["node.registered", "node.installation_started", "node.connected"];
    controller.wait_for_events(&node, &events)?;
    for token in &tokens {
        assert!(
            !worker.log_tail().contains(token.as_str()) && !controller.log_tail().contains(token.as_str())
        );
    }
    Ok(())
}
