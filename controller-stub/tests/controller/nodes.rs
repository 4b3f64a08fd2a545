//! Lists of nodes, their names and their labels.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    harness::{Client, Controller, answer, refusal},
    peers::Worker,
};

async fn patch(client: &Client, id: &str, changes: Value) -> (StatusCode, Value) {
    answer(client.request(Method::PATCH, &format!("/nodes/{id}")).json(&changes)).await
}

fn names(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect()
}

async fn listed(client: &Client, query: &str) -> Vec<String> {
    let (status, list) = client.get(&format!("/nodes?{query}")).await;
    assert_eq!(status, 200, "{query}: {list}");
    assert_eq!(list["pagination"]["total"].as_u64(), list["data"].as_array().map(|it| it.len() as u64));
    names(&list).into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_list_has_all_of_a_node_but_what_its_machine_is_like() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let _worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    let mut node = owner.await_connected(&id, true).await;
    assert!(node["systemInfo"]["hardware"].is_object(), "{node}");
    let keys: BTreeSet<_> = node.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = "_id name role status owner labels websocketConnected lastSeenAt connectionEstablishedAt createdAt ipAddress \
        daemonVersion systemInfo installation update pin gpuHealth identityConflict containers containersLeftOut";
    assert_eq!(keys, expected.split_whitespace().collect());

    let (_, list) = owner.get("/nodes").await;
    for of_one in ["systemInfo", "containers", "containersLeftOut"] {
        assert!(node.as_object_mut().unwrap().remove(of_one).is_some(), "{of_one}");
    }
    assert_eq!(
        list["data"][0].as_object().unwrap().keys().collect::<Vec<_>>(),
        node.as_object().unwrap().keys().collect::<Vec<_>>()
    );
    assert!(list.to_string().len() < 2000, "{list}");
}

#[tokio::test]
async fn nodes_are_found_by_name_label_and_status_in_the_order_in_which_people_count() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    controller.owner_of("evil").await.add_node("gpu-1").await;
    for (name, labels) in [
        ("gpu-10", json!({"rack": "r1", "gpu": "H100"})),
        ("gpu-2", json!({"rack": "r1"})),
        ("gpu_1", json!({"rack": "R1", "example.com/gpu": "h100"})),
        ("CPU-1", json!({})),
    ] {
        let (status, node) = owner.post("/nodes", json!({"name": name, "labels": labels})).await;
        assert_eq!((status, &node["labels"]), (StatusCode::CREATED, &labels));
    }
    assert_eq!(listed(&owner, "sort=name").await, ["CPU-1", "gpu-2", "gpu-10", "gpu_1"]);
    assert_eq!(listed(&owner, "sort=-name").await, ["gpu_1", "gpu-10", "gpu-2", "CPU-1"]);
    assert_eq!(listed(&owner, "name=gpu-2").await, ["gpu-2"]);
    assert_eq!(listed(&owner, "name=cpu-1").await, [""; 0]);
    assert_eq!(listed(&owner, "name=*-1*&sort=name").await, ["CPU-1", "gpu-10"]);
    assert_eq!(listed(&owner, "name=GPU_*").await, ["gpu_1"], "only `*` has a meaning");
    assert_eq!(listed(&owner, "label=rack%3Dr1&sort=name").await, ["gpu-2", "gpu-10"]);
    assert_eq!(listed(&owner, "label=rack=r1,gpu").await, ["gpu-10"]);
    assert_eq!(listed(&owner, "label=example.com/gpu=h100").await, ["gpu_1"]);
    assert_eq!(listed(&owner, "label=gpu=h100").await, [""; 0]);
    assert_eq!(listed(&owner, "status=online,pending,&label=rack=R1").await, ["gpu_1"]);
    assert_eq!(listed(&owner, "status=online").await, [""; 0]);
    for (query, field) in [
        ("status=pending,up", "status"),
        ("status=", "status"),
        ("label=a%20b", "label"),
        ("label=-", "label"),
        ("cursor=x", "cursor"),
        ("cursor=e30", "cursor"),
        ("labels=a", "labels"),
    ] {
        let message = refusal(owner.get(&format!("/nodes?{query}")).await, 400, "VALIDATION_FAILED");
        assert!(message.contains(field), "{query}: {message}");
    }
}

#[tokio::test]
async fn a_cursor_goes_through_every_order_and_misses_nothing_when_nodes_come_and_go() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let mut ids = Vec::new();
    for number in 1..=7 {
        ids.push(owner.add_node(&format!("gpu-{number}")).await);
    }
    for sort in ["createdAt", "-createdAt", "name", "-name", "status", "-status", "lastSeenAt", "-lastSeenAt"]
    {
        let (mut seen, mut query) = (Vec::new(), format!("sort={sort}&limit=3"));
        loop {
            let (_, list) = owner.get(&format!("/nodes?{query}")).await;
            seen.extend(names(&list).into_iter().map(str::to_owned));
            assert_eq!(list["pagination"]["total"], 7);
            let Some(next) = list["pagination"]["nextCursor"].as_str() else { break };
            query = format!("sort={sort}&limit=3&cursor={next}");
        }
        assert_eq!(seen.len(), 7, "{sort}: {seen:?}");
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 7, "{sort}: {seen:?}");
    }
    let (_, first) = owner.get("/nodes?sort=-createdAt&limit=3").await;
    owner.add_node("gpu-8").await;
    let next = first["pagination"]["nextCursor"].as_str().unwrap();
    let (_, second) = owner.get(&format!("/nodes?sort=-createdAt&limit=3&cursor={next}")).await;
    assert_eq!(names(&second), ["gpu-4", "gpu-3", "gpu-2"], "a page would show gpu-5 again");
    assert_eq!(second["pagination"]["page"], Value::Null);
    refusal(owner.get(&format!("/nodes?page=2&cursor={next}")).await, 400, "VALIDATION_FAILED");
    refusal(owner.get(&format!("/nodes?sort=name&cursor={next}")).await, 400, "VALIDATION_FAILED");
}

#[tokio::test]
async fn a_name_is_one_node_s_however_it_is_given() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let (first, second) = (owner.add_node("gpu-1").await, owner.add_node("gpu-2").await);
    refusal(owner.post("/nodes", json!({"name": "gpu-1"})).await, 409, "NAME_TAKEN");
    refusal(patch(&owner, &second, json!({"name": "gpu-1"})).await, 409, "NAME_TAKEN");
    assert_eq!(
        patch(&owner, &second, json!({"name": "gpu-2"})).await.0,
        200,
        "its own name is nobody else's"
    );
    assert_eq!(controller.owner_of("evil").await.post("/nodes", json!({"name": "gpu-1"})).await.0, 201);

    let renamed = patch(&owner, &second, json!({"name": "gpu-3"})).await;
    assert_eq!((renamed.0.as_u16(), &renamed.1["name"]), (200, &json!("gpu-3")));
    assert_eq!(owner.post("/nodes", json!({"name": "gpu-2"})).await.0, 201, "its old one is free");
    let decommission = owner.request(Method::DELETE, &format!("/nodes/{first}"));
    assert_eq!(decommission.send().await.unwrap().status(), 200);
    assert_eq!(owner.post("/nodes", json!({"name": "gpu-1"})).await.0, 201, "one out of service has none");
    refusal(patch(&owner, &first, json!({"labels": {"a": "b"}})).await, 409, "NODE_INACTIVE");

    let at_once = (0..8).map(|_| owner.post("/nodes", json!({"name": "raced"})));
    let answers = futures_util::future::join_all(at_once).await;
    assert_eq!(answers.iter().filter(|(status, _)| *status == 201).count(), 1, "{answers:?}");
}

#[tokio::test]
async fn labels_are_set_and_taken_away_one_by_one_and_checked() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let labels = json!({"rack": "r7", "zone": ""});
    assert_eq!(patch(&owner, &id, json!({"labels": labels})).await.1["labels"], labels);
    let changed = patch(&owner, &id, json!({"labels": {"zone": null, "gpu": "h100"}})).await.1;
    assert_eq!(changed["labels"], json!({"gpu": "h100", "rack": "r7"}));
    assert_eq!(patch(&owner, &id, json!({})).await.1["labels"], changed["labels"]);
    assert_eq!(owner.node(&id).await["labels"], changed["labels"]);
    for (changes, field) in [
        (json!({"labels": {"a b": "x"}}), "labels"),
        (json!({"labels": {"a": "x y"}}), "labels"),
        (json!({"labels": {"a": 7}}), "labels"),
        (json!({"labels": []}), "labels"),
        (json!({"name": ""}), "name"),
        (json!({"status": "online"}), "status"),
    ] {
        let message = refusal(patch(&owner, &id, changes.clone()).await, 400, "VALIDATION_FAILED");
        assert!(message.contains(field), "{changes}: {message}");
    }
    let foreign = controller.owner_of("evil").await;
    refusal(patch(&foreign, &id, json!({"name": "mine"})).await, 404, "NODE_NOT_FOUND");
}

#[tokio::test]
async fn a_node_s_tokens_are_listed_without_the_tokens() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let first = owner.token_of(&id).await;
    let (_, answer) =
        owner.post(&format!("/nodes/{id}/regenerate-credentials"), json!({"expiresIn": 3600})).await;
    let second = answer["token"].as_str().unwrap();
    let (_, list) = owner.get(&format!("/nodes/{id}/tokens")).await;
    let tokens = list["data"].as_array().unwrap();
    assert_eq!((tokens.len(), &list["pagination"]["total"]), (2, &json!(2)));
    assert_eq!((&tokens[0]["revokedAt"], &tokens[0]["mintedBy"]), (&Value::Null, &json!("user:someone")));
    assert!(tokens[1]["revokedAt"].is_string() && tokens[1]["jti"].is_string(), "{list}");
    for token in [&first, second] {
        let signature = token.rsplit('.').next().unwrap();
        assert!(!list.to_string().contains(signature));
    }
}

#[tokio::test]
async fn nodes_from_before_names_had_an_order_are_ordered_after_a_start() {
    let mut controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    for name in ["gpu-10", "gpu-2", "gpu-1"] {
        owner.add_node(name).await;
    }
    controller.sql("UPDATE nodes SET name_key = ''").await;
    let address = controller.address();
    controller.stop().await;
    controller.start_again(address).await;
    assert_eq!(listed(&owner, "sort=name").await, ["gpu-1", "gpu-2", "gpu-10"]);
}
