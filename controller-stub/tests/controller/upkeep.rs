//! What an operator does once in a while: restoring a backup without giving rights back, and
//! dropping what is out of service for long.

use std::{fs, time::Duration};

use controller_stub::commands::{self, Concerned, For};
use reqwest::Method;

use crate::{
    harness::{Controller, answer, eventually, refusal},
    peers::Worker,
    program::run,
};

fn of_acme() -> Concerned {
    Concerned::One(For { org: Some("acme".parse().unwrap()), user: None })
}

#[tokio::test]
async fn tokens_that_a_restored_backup_accepts_again_are_revoked_by_their_time_of_issue() {
    let mut controller = Controller::start().await;
    let address = controller.address();
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let database = controller.config.data_dir.join("controller.db");
    controller.stop().await;
    let backup = fs::read(&database).unwrap();

    controller.start_again(address).await;
    let owner = controller.owner_of("acme").await;
    let plan = format!("/nodes/{id}/installation");
    owner.post(&format!("/nodes/{id}/regenerate-credentials"), serde_json::json!({})).await;
    refusal(owner.bearer_of(&token).get(&plan).await, 401, "TOKEN_REVOKED");
    controller.stop().await;
    fs::write(&database, backup).unwrap();

    controller.start_again(address).await;
    let owner = controller.owner_of("acme").await;
    let (other, node) = (controller.owner_of("other").await, owner.bearer_of(&token));
    assert_eq!(node.get(&plan).await.0, 200, "the backup knows of no revocation");
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    let other_id = other.add_node("gpu").await;
    let other_token = other.token_of(&other_id).await;
    // Tokens carry whole seconds.
    let now = || aio_protocol::time::Timestamp::from(std::time::SystemTime::now() + Duration::from_secs(1));
    let would = commands::revoke_issued_before(&controller.config, of_acme(), now(), true).await.unwrap();
    assert_eq!((would, node.get(&plan).await.0.as_u16()), (1, 200));
    assert_eq!(commands::revoke_issued_before(&controller.config, of_acme(), now(), false).await.unwrap(), 1);
    assert_eq!(worker.closed().await, 4401);
    refusal(node.get(&plan).await, 401, "TOKEN_REVOKED");
    let others_plan = format!("/nodes/{other_id}/installation");
    assert_eq!(other.bearer_of(&other_token).get(&others_plan).await.0, 200, "another organisation's stays");
    commands::revoke_issued_before(&controller.config, Concerned::All, now(), false).await.unwrap();
    refusal(other.bearer_of(&other_token).get(&others_plan).await, 401, "TOKEN_REVOKED");
    // A token that is made from then on is good.
    let fresh = eventually("a fresh token", async || {
        let token = owner.token_of(&id).await;
        let (status, answer) = owner.bearer_of(&token).get(&plan).await;
        if status == 200 { Ok(token) } else { Err(answer.to_string()) }
    })
    .await;
    Worker::welcomed(&controller.gateway(), &id, &fresh).await;
}

#[tokio::test]
async fn decommissioned_nodes_are_dropped_when_an_operator_says_so() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let (gone, serving) = (owner.add_node("gone").await, owner.add_node("serving").await);
    answer(owner.request(Method::DELETE, &format!("/nodes/{gone}"))).await;
    owner.await_events(&gone, &["node.registered", "node.decommissioned"]).await;
    let purge = async |age: u64, dry_run| {
        commands::purge_nodes(&controller.config, of_acme(), Duration::from_secs(age), dry_run).await.unwrap()
    };
    assert_eq!(purge(3600, false).await, 0);
    assert_eq!(owner.node(&gone).await["status"], "inactive");
    eventually("it owes no event", async || match purge(0, true).await {
        1 => Ok(()),
        others => Err(others.to_string()),
    })
    .await;
    assert_eq!(purge(0, false).await, 1);
    assert_eq!(purge(0, false).await, 0);
    let (_, trail) = owner.get("/audit?action=node.purge").await;
    let records = trail["data"].as_array().unwrap();
    assert_eq!(records.len(), 1, "what drops nothing is no change: {trail}");
    assert_eq!(records[0]["detail"]["nodes"], 1, "{trail}");
    refusal(owner.get(&format!("/nodes/{gone}")).await, 404, "NODE_NOT_FOUND");
    assert_eq!(owner.node(&serving).await["status"], "pending");
}

#[test]
fn the_commands_say_what_they_would_do() {
    let data = tempfile::tempdir().unwrap();
    let told = |arguments: &[&str]| {
        let output = run(arguments, data.path());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(told(&["node", "purge", "--inactive-for", "90d", "--dry-run"]), "0 nodes would be dropped\n");
    let before =
        ["node", "token", "revoke", "--issued-before", "2026-01-01T00:00:00Z", "--every-organisation"];
    let revoked = "the tokens of 0 nodes that were issued before 2026-01-01T00:00:00.000Z are revoked\n";
    assert_eq!(told(&before), revoked);
    for wrong in [
        &["node", "token", "revoke"][..],
        &["node", "token", "revoke", "gpu", "--dry-run"],
        &["node", "token", "revoke", "gpu", "--every-organisation"],
        &["node", "purge", "--inactive-for", "soon"],
    ] {
        assert_eq!(run(wrong, data.path()).status.code(), Some(2), "{wrong:?}");
    }
}
