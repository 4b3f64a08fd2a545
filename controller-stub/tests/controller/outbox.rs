//! What NOTI's answers lead to: what is given up and comes back, what stops everything, what is waited for.

use std::time::{Duration, Instant};

use controller_stub::commands;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    harness::{Client, Controller, eventually, refusal},
    peers::{FakeNoti, Post},
};

async fn with_noti(noti: &FakeNoti) -> Controller {
    Controller::start_with(|config| config.noti_service_url = Some(noti.url().parse().unwrap())).await
}

async fn await_posts(noti: &FakeNoti, count: usize) -> Vec<Post> {
    eventually(&format!("{count} posts"), async || {
        let posts = noti.posts();
        if posts.len() == count { Ok(posts) } else { Err(format!("{}", posts.len())) }
    })
    .await
}

/// Waits until the organisation has so many, all on one page.
async fn await_dead(user: &Client, count: usize) -> Vec<Value> {
    eventually(&format!("{count} dead letters"), async || {
        let (status, page) = user.get("/dead-letters").await;
        assert_eq!(status, 200, "{page}");
        let letters = page["data"].as_array().unwrap();
        if letters.len() == count { Ok(letters.clone()) } else { Err(page.to_string()) }
    })
    .await
}

async fn install(controller: &Controller, owner: &Client, id: &str) {
    let installer = controller.bearer(&owner.token_of(id).await);
    let (status, body) =
        installer.post(&format!("/nodes/{id}/installation"), json!({"phase": "started"})).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test]
async fn a_rejected_event_is_kept_for_a_replay_and_does_not_hold_up_what_follows_it() {
    let noti = FakeNoti::start(&[422]).await;
    let controller = with_noti(&noti).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let letter = await_dead(&owner, 1).await.remove(0);
    assert_eq!(letter["reason"], "rejected: NOTI answered 422");
    assert_eq!((&letter["attempts"], &letter["event"]["type"]), (&json!(1), &json!("node.registered")));
    assert_eq!(letter["event"]["data"]["nodeId"], id);
    install(&controller, &owner, &id).await;
    let posts = await_posts(&noti, 2).await;
    assert_eq!(posts[1].json()["type"], "node.installation_started");

    let path = format!("/dead-letters/{}/replay", letter["id"].as_str().unwrap());
    let (status, replayed) = owner.post(&path, json!({})).await;
    assert_eq!((status.as_u16(), replayed), (200, json!({"replayed": 1})));
    let posts = await_posts(&noti, 3).await;
    assert_eq!(posts[2].header("webhook-id"), letter["id"]);
    assert_eq!(posts[2].body, posts[0].body);
    await_dead(&owner, 0).await;
    refusal(owner.post(&path, json!({})).await, 404, "NOT_FOUND");
}

#[tokio::test]
async fn dead_letters_are_their_organisations_and_only_managers_replay_them() {
    let noti = FakeNoti::start(&[400, 400, 400]).await;
    let controller = with_noti(&noti).await;
    let owner = controller.owner_of("acme").await;
    let mut letters = Vec::new();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        owner.add_node(name).await;
        letters = await_dead(&owner, number + 1).await;
    }
    let (_, page) = owner.get("/dead-letters?limit=2&page=2").await;
    assert_eq!(page["pagination"], json!({"page": 2, "limit": 2, "total": 3, "totalPages": 2}));
    assert_eq!(page["data"], json!([letters[2]]), "the latest first");

    let stranger = controller.owner_of("other").await;
    await_dead(&stranger, 0).await;
    let path = format!("/dead-letters/{}/replay", letters[0]["id"].as_str().unwrap());
    refusal(stranger.post(&path, json!({})).await, 404, "NOT_FOUND");
    assert_eq!(stranger.post("/dead-letters/replay", json!({})).await.1, json!({"replayed": 0}));
    let member = controller.user("acme", "organization.member").await;
    await_dead(&member, 3).await;
    refusal(member.post(&path, json!({})).await, 403, "FORBIDDEN");
    refusal(member.post("/dead-letters/replay", json!({})).await, 403, "FORBIDDEN");
    refusal(member.post("/delivery/resume", json!({})).await, 403, "FORBIDDEN");

    assert_eq!(owner.post("/dead-letters/replay", json!({})).await.1, json!({"replayed": 3}));
    let posts = await_posts(&noti, 6).await;
    assert!(posts[3..].iter().all(|post| post.status == StatusCode::ACCEPTED));
}

#[tokio::test]
async fn an_event_that_noti_has_not_taken_for_a_day_is_given_up() {
    let noti = FakeNoti::start(&[500; 50]).await;
    let mut controller = with_noti(&noti).await;
    let address = controller.address();
    let owner = controller.owner_of("acme").await;
    owner.add_node("gpu").await;
    eventually("a failed attempt", async || {
        match controller.number("SELECT MAX(attempts) FROM outbox").await {
            0 => Err("none yet".to_owned()),
            some => Ok(some),
        }
    })
    .await;
    controller.stop().await;
    controller.sql("UPDATE outbox SET tried_millis = 86400000, next_attempt_at = 0").await;
    controller.start_again(address).await;
    let letters = await_dead(&controller.owner_of("acme").await, 1).await;
    assert_eq!(letters[0]["reason"], "expired: NOTI answered 500");
    assert!(letters[0]["attempts"].as_u64() >= Some(2), "{letters:?}");
}

#[tokio::test]
async fn a_noti_that_is_gone_stops_delivery_until_it_is_resumed_and_loses_nothing() {
    let noti = FakeNoti::start(&[410]).await;
    let controller = with_noti(&noti).await;
    let owner = controller.owner_of("acme").await;
    let first = owner.add_node("first").await;
    eventually("a stop", async || {
        let (_, delivery) = owner.get("/delivery").await;
        if delivery["state"] == "stopped" { Ok(()) } else { Err(delivery.to_string()) }
    })
    .await;
    let second = owner.add_node("second").await;
    let operator = controller.user("acme", "universe.owner").await;
    let resumed = Instant::now();
    let (status, delivery) = operator.post("/delivery/resume", json!({})).await;
    assert_eq!((status.as_u16(), &delivery["state"]), (200, &json!("running")));
    let posts = await_posts(&noti, 3).await;
    assert!(posts[1..].iter().all(|post| post.at >= resumed), "posted while it was stopped");
    let mut told: Vec<_> =
        posts[1..].iter().map(|post| post.json()["data"]["nodeId"].as_str().unwrap().to_owned()).collect();
    told.sort();
    let mut nodes = vec![first, second];
    nodes.sort();
    assert_eq!(told, nodes);
}

#[tokio::test]
async fn retry_after_is_obeyed_for_every_node() {
    let noti = FakeNoti::start(&[429]).await;
    let controller = with_noti(&noti).await;
    let owner = controller.owner_of("acme").await;
    owner.add_node("first").await;
    let asked = await_posts(&noti, 1).await[0].at;
    owner.add_node("second").await;
    let posts = await_posts(&noti, 3).await;
    for post in &posts[1..] {
        let waited = post.at - asked;
        assert!(waited >= Duration::from_millis(990), "{waited:?} after NOTI asked for a second");
    }
}

#[tokio::test]
async fn refusals_that_a_person_must_cure_are_tried_seldom() {
    let noti = FakeNoti::start(&[401]).await;
    let controller = with_noti(&noti).await;
    let owner = controller.owner_of("acme").await;
    owner.add_node("gpu").await;
    await_posts(&noti, 1).await;
    let due = eventually("a postponed event", async || {
        let due = controller
            .number("SELECT COALESCE(MAX(next_attempt_at - first_attempt_at), 0) FROM outbox")
            .await;
        if due > 0 { Ok(due) } else { Err(due.to_string()) }
    })
    .await;
    assert!((240_000..=361_000).contains(&due), "{due} ms");
}

#[tokio::test]
async fn a_clock_that_was_set_back_keeps_no_event_waiting_and_one_that_was_set_ahead_gives_none_up() {
    let noti = FakeNoti::start(&[401, 500]).await;
    let mut controller = with_noti(&noti).await;
    let address = controller.address();
    let owner = controller.owner_of("acme").await;
    owner.add_node("gpu").await;
    await_posts(&noti, 1).await;
    controller.stop().await;
    // What an hour ago was a year ahead: the due time is, and the attempt was two years ago by another clock.
    controller
        .sql("UPDATE outbox SET next_attempt_at = next_attempt_at + 31536000000, first_attempt_at = 0, last_attempt_at = 0")
        .await;
    controller.start_again(address).await;
    await_posts(&noti, 3).await;
    await_dead(&controller.owner_of("acme").await, 0).await;
}

#[tokio::test]
async fn a_resume_tries_now_what_waits_for_a_person_to_cure_it() {
    let noti = FakeNoti::start(&[401, 401, 429]).await;
    let controller = with_noti(&noti).await;
    let owner = controller.owner_of("acme").await;
    owner.add_node("first").await;
    owner.add_node("second").await;
    await_posts(&noti, 2).await;
    assert!(noti.posts()[0].header("user-agent").starts_with("aio-controller-stub/"));
    let operator = controller.user("acme", "universe.owner").await;
    for count in [4, 5] {
        eventually("the attempts are noted", async || {
            match controller.number("SELECT COUNT(*) FROM outbox WHERE attempts = 0").await {
                0 => Ok(()),
                some => Err(some.to_string()),
            }
        })
        .await;
        assert_eq!(operator.post("/delivery/resume", json!({})).await.0, 200);
        await_posts(&noti, count).await;
    }
}

#[tokio::test]
async fn the_command_line_says_how_delivery_stands_and_has_it_tried_now() {
    let noti = FakeNoti::start(&[410]).await;
    let controller = with_noti(&noti).await;
    controller.owner_of("acme").await.add_node("gpu").await;
    eventually("a stop", async || {
        let shown = commands::show_delivery(&controller.config).await.unwrap();
        let stopped =
            shown.state.as_deref() == Some("stopped") && shown.waiting == 1 && shown.oldest.is_some();
        if stopped { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
    commands::resume_delivery(&controller.config).await.unwrap();
    await_posts(&noti, 2).await;
    eventually("nothing waits", async || {
        let shown = commands::show_delivery(&controller.config).await.unwrap();
        if shown.waiting == 0 { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
}
