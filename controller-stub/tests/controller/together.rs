//! Nodes that are registered together on the command line: all or none, numbered, as an inventory.

use std::path::Path;

use aio_protocol::error_code::ErrorCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use controller_stub::commands::{self, For, Issue, Listed, Purpose, Which};
use serde_json::Value;

use crate::{
    harness::Controller,
    program::{run, serve_with},
};

/// What the program printed that succeeded.
fn printed(arguments: &[&str], data: &Path) -> String {
    let output = run(arguments, data);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What the program said that failed.
fn refused(arguments: &[&str], data: &Path) -> String {
    let output = run(arguments, data);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn an_hour() -> Issue {
    Issue { lasts_secs: 3600, ..Issue::default() }
}

#[tokio::test]
async fn a_hundred_nodes_are_registered_together_and_each_has_its_token_and_its_event() {
    let controller = Controller::start().await;
    let names = commands::numbered("gpu", 1, 100).unwrap();
    let added = commands::add_nodes(&controller.config, names.clone(), an_hour()).await.unwrap();
    assert!(added.nodes.iter().map(|node| node.name.as_str()).eq(names.iter().map(String::as_str)));
    let token =
        commands::user_token(&controller.config, For::default(), vec!["organization.member".into()], 3600);
    let owner = controller.bearer(&token.await.unwrap());
    for node in [&added.nodes[0], &added.nodes[99]] {
        owner.await_events(&node.node_id, &["node.registered"]).await;
        let bearer = controller.bearer(&node.token);
        assert_eq!(bearer.get(&format!("/nodes/{}/installation", node.node_id)).await.0, 200);
        let (_, trail) = owner.get(&format!("/nodes/{}/transitions", node.node_id)).await;
        assert_eq!(trail["data"][0]["actor"], "command line", "{trail}");
    }
}

#[tokio::test]
async fn one_name_that_is_taken_or_stands_twice_refuses_all_and_one_out_of_service_is_free() {
    let controller = Controller::start().await;
    let add = async |names: &[&str]| {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        commands::add_nodes(&controller.config, names, an_hour()).await
    };
    let first = add(&["gpu-001"]).await.ok().unwrap();
    let token =
        commands::user_token(&controller.config, For::default(), vec!["organization.owner".into()], 3600);
    let owner = controller.bearer(&token.await.unwrap());
    let total = async || owner.get("/nodes").await.1["statistics"]["total"].as_u64().unwrap();

    let taken = add(&["gpu-000", "gpu-001", "gpu-002"]).await.err().unwrap().to_string();
    assert_eq!(
        taken,
        "the node `gpu-001` is registered already, so nothing was registered; with --count, --first goes on from another number"
    );
    let twice = add(&["a", "b", "a"]).await.err().unwrap().to_string();
    assert!(twice.contains("`a` stands twice"), "{twice}");
    assert_eq!(total().await, 1);

    let path = format!("/nodes/{}", first.nodes[0].node_id);
    assert_eq!(owner.request(reqwest::Method::DELETE, &path).send().await.unwrap().status(), 200);
    assert!(add(&["gpu-000", "gpu-001"]).await.is_ok());
    assert_eq!(total().await, 3);
}

#[test]
fn numbered_nodes_are_printed_with_their_names_and_as_an_inventory() {
    let data = tempfile::tempdir().unwrap();
    let served = serve_with(&[], data.path());

    let text = printed(&["node", "add", "gpu", "--count", "2"], data.path());
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[2]), (4, "# gpu-001", "# gpu-002"));
    assert!(lines[1].starts_with("sudo aio-worker install --token ey"), "{text}");
    let again = refused(&["node", "add", "gpu", "--count", "3"], data.path());
    assert!(again.contains("error[USAGE]: the nodes `gpu-001`, `gpu-002` are registered already"), "{again}");
    let json =
        printed(&["node", "add", "gpu", "--count", "1", "--first", "3", "--output", "json"], data.path());
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["name"], "gpu-003");

    let inventory = printed(&["node", "add", "rack", "--count", "2", "--output", "ansible"], data.path());
    let lines: Vec<_> = inventory.lines().collect();
    assert!(lines[0].starts_with("# Secret: "), "{inventory}");
    assert_eq!(lines[1..4], ["aio_workers:", "  hosts:", "    \"rack-001\":"]);
    assert!(
        lines[4].starts_with("      aio_worker_node_id: \"")
            && lines[5].starts_with("      aio_worker_token: \"ey")
    );
    assert_eq!((lines.len(), lines[6]), (9, "    \"rack-002\":"));

    let no_host = refused(&["node", "add", "fine", "gpu 1", "--output", "ansible"], data.path());
    assert!(no_host.contains("`gpu 1` can be no host"), "{no_host}");
    let several = refused(&["node", "add", "a", "b", "--count", "2"], data.path());
    assert!(several.contains("several are given"), "{several}");
    assert_eq!(printed(&["node", "list"], data.path()).lines().count(), 5);
    drop(served);
}

#[test]
fn an_inventory_carries_the_authority_of_a_controller_that_has_its_own() {
    let data = tempfile::tempdir().unwrap();
    let _served = serve_with(&["--tls-self-signed"], data.path());
    let inventory = printed(&["node", "add", "gpu", "--output", "ansible"], data.path());
    assert!(inventory.contains("    aio_worker_authority: \"-----BEGIN CERTIFICATE-----\\n"), "{inventory}");
    assert!(!inventory.contains("PRIVATE KEY"));
}

#[tokio::test]
async fn user_data_carries_the_install_script_of_one_node_and_is_not_made_without_one() {
    let controller = Controller::start().await;
    let (names, issue) = (vec!["gpu-001".to_owned()], Issue { purpose: Purpose::UserData, ..an_hour() });
    let added = commands::add_nodes(&controller.config, names.clone(), issue.clone()).await.unwrap();
    let text = commands::user_data(&added.nodes[0]).unwrap();
    assert!(text.starts_with("#cloud-config\n"), "{text}");
    let encoded: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("content: ")).collect();
    assert_eq!(encoded.len(), 1, "{text}");
    let script = String::from_utf8(STANDARD.decode(encoded[0]).unwrap()).unwrap();
    assert_eq!(Some(&script), added.nodes[0].install_script.as_ref());
    assert!(!text.contains(&added.nodes[0].token), "a token that stands in the clear");

    let controller = Controller::start_with(|config| config.releases = None).await;
    let refused = commands::add_nodes(&controller.config, names, issue).await.err().unwrap();
    assert_eq!(refused.code(), ErrorCode::ReleaseNotFound);
    let nodes = commands::list_nodes(&controller.config, For::default(), Listed::default()).await.unwrap();
    assert!(nodes.is_empty(), "{nodes:?}");
}

#[tokio::test]
async fn nodes_that_are_there_get_new_tokens_beside_those_that_they_have() {
    let controller = Controller::start().await;
    let names = commands::numbered("gpu", 1, 3).unwrap();
    let before = commands::add_nodes(&controller.config, names, an_hour()).await.unwrap().nodes;
    let ids: Vec<_> = before.iter().map(|node| node.node_id.clone()).collect();
    let add = async |which: Which, issue: Issue| commands::add_tokens(&controller.config, which, issue).await;

    let again = add(Which::These(vec![ids[2].clone(), "gpu-001".to_owned()]), an_hour()).await.unwrap().nodes;
    assert_eq!(again.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["gpu-003", "gpu-001"]);
    for token in [&again[1].token, &before[0].token] {
        let path = format!("/nodes/{}/installation", ids[0]);
        assert_eq!(controller.bearer(token).get(&path).await.0, 200);
    }

    let unpublished = Issue { version: Some("v9.9.9".parse().unwrap()), ..an_hour() };
    let refused = add(Which::All, unpublished).await.err().unwrap();
    assert_eq!(refused.code(), ErrorCode::ReleaseNotFound);

    let token =
        commands::user_token(&controller.config, For::default(), vec!["organization.owner".into()], 3600);
    let owner = controller.bearer(&token.await.unwrap());
    let path = format!("/nodes/{}", ids[1]);
    assert_eq!(owner.request(reqwest::Method::DELETE, &path).send().await.unwrap().status(), 200);
    let refused = add(Which::These(ids), an_hour()).await.err().unwrap();
    assert_eq!(refused.code(), ErrorCode::NodeInactive);
    let all = add(Which::All, Issue { purpose: Purpose::Inventory, ..an_hour() }).await.unwrap();
    assert_eq!(all.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["gpu-001", "gpu-003"]);
    let nobody = vec!["69396100cd71623c7bbfbfee".to_owned()];
    assert_eq!(add(Which::These(nobody), an_hour()).await.err().unwrap().code(), ErrorCode::NodeNotFound);
}
