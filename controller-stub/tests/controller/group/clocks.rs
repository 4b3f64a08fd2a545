//! Controllers whose machines' clocks are wrong, each in its own way. What is due is counted by each one's own
//! monotonic clock, and who is dead by beats; so a wrong clock shows in times that are told, and nowhere else.

use super::*;

/// Shifts the wall clock of the program that it is loaded into, and leaves its monotonic clock alone.
const SHIFT: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

fn shifted(by: &'static str) -> Vec<(&'static str, &'static str)> {
    assert!(Path::new(SHIFT).exists(), "the package faketime is not installed");
    vec![("LD_PRELOAD", SHIFT), ("FAKETIME", by), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_are_two_minutes_apart_take_no_node_offline_refuse_no_token_and_keep_events_in_order() {
    let cluster = Cluster::start("password").unwrap();
    let url = cluster.url();
    let lease = "heartbeat_timeout = \"4s\"\n";
    let ahead = start_in(shifted("+60s"), "127.0.0.1:0", &url, lease).await;
    let behind = start_in(shifted("-60s"), "127.0.0.1:0", &url, lease).await;
    let owner = user_at(&behind.0, behind.1.path(), &url, "organization.owner").await;
    let at_ahead = owner.through_address(&ahead.0.url);
    let operator = user_at(&behind.0, behind.1.path(), &url, "universe.owner").await;
    leader(&operator, 2).await;
    // The clocks are as they are meant to be.
    let made = at_ahead.add_node("made-ahead").await;
    let later = owner.add_node("made-behind").await;
    let at = async |id: &str| owner.node(id).await["createdAt"].as_str().unwrap().to_owned();
    assert!(at(&made).await > at(&later).await, "{} {}", at(&made).await, at(&later).await);

    let mut beating = Vec::new();
    for (id, issuer, other) in [(&made, &at_ahead, &behind), (&later, &owner, &ahead)] {
        // Revoked and made anew by one whose clock is another than that of who made it.
        let token = issuer.token_of(id).await;
        let mut worker = Worker::welcomed(&gateway(&other.0), id, &token).await;
        let there = owner.through_address(&other.0.url);
        assert_eq!(there.post(&format!("/nodes/{id}/regenerate-credentials"), json!({})).await.0, 201);
        assert_eq!(worker.closed().await, 4401);
        let token = issuer.token_of(id).await;
        let worker = Worker::welcomed(&gateway(&ahead.0), id, &token).await;
        drop(worker);
        beating.push((id, token.clone(), Worker::welcomed(&gateway(&behind.0), id, &token).await));
    }
    let mut types = FIRST.to_vec();
    for round in 0..4 {
        let (first, second) = if round % 2 == 0 { (&owner, &at_ahead) } else { (&at_ahead, &owner) };
        assert_eq!(first.post(&format!("/nodes/{made}/maintenance"), json!({})).await.0, 200);
        assert_eq!(second.post(&format!("/nodes/{made}/resume"), json!({})).await.0, 200);
        types.extend(["node.maintenance_mode", "node.resumed"]);
    }
    owner.await_events(&made, &types).await;
    // Longer than two leases.
    let began = Instant::now();
    for seq in 1.. {
        for (_, _, worker) in &mut beating {
            worker.heartbeat(seq).await;
            worker.ping().await;
        }
        if began.elapsed() > Duration::from_secs(9) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for (id, ..) in &beating {
        let node = owner.node(id).await;
        assert_eq!(
            (&node["status"], &node["websocketConnected"]),
            (&json!("online"), &json!(true)),
            "{node}"
        );
    }
    // The one that led is gone, and what the other finds due was made by a clock that is ahead of its own.
    signal(&ahead.0, Signal::KILL);
    assert_eq!(owner.post(&format!("/nodes/{made}/maintenance"), json!({})).await.0, 200);
    types.push("node.maintenance_mode");
    let began = Instant::now();
    let beats = async {
        for seq in 100.. {
            for (_, _, worker) in &mut beating {
                worker.heartbeat(seq).await;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let told = after_a_death("the other delivers", async || {
        let seen: Vec<_> =
            owner.events(&made).await.iter().map(|it| it["type"].as_str().unwrap().to_owned()).collect();
        if seen == types { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    tokio::select! {
        () = beats => {}
        () = told => {}
    }
    println!("delivered {:?} after the kill", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    owner.await_events(&later, &FIRST).await;
}
