//! New tokens for old: offered over the socket, taken by coming with them, and never more than one
//! that works in the end.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error;

use crate::{
    gateway::signed,
    harness::{Client, Controller, SECRET, eventually},
    peers::{Worker, dial},
};

/// Tokens of a few seconds: the first offer comes after two thirds of them.
const LIFE_SECS: i64 = 3;

struct Node {
    controller: Controller,
    owner: Client,
    id: String,
    token: String,
}

impl Node {
    async fn new() -> Self {
        let controller = Controller::start().await;
        let owner = controller.owner_of("acme").await;
        let id = owner.add_node("gpu").await;
        let token = signed(SECRET, &id, LIFE_SECS);
        Self { controller, owner, id, token }
    }

    async fn welcomed(&self, token: &str) -> Worker {
        Worker::welcomed(&self.controller.gateway(), &self.id, token).await
    }

    /// The code of the refusal that a dial with this token meets, or nothing.
    async fn refusal(&self, token: &str) -> Option<String> {
        match dial(&self.controller.gateway(), Some(token), Some("aio.node.v1")).await {
            Ok(_) => None,
            Err(Error::Http(answer)) => {
                let body: Value = serde_json::from_slice(answer.body().as_deref().unwrap()).unwrap();
                Some(body["code"].as_str().unwrap().to_owned())
            }
            Err(error) => panic!("{error}"),
        }
    }
}

async fn offered(worker: &mut Worker) -> (String, Value) {
    let offer = worker.receive("auth.rotate").await;
    (offer["data"]["token"].as_str().unwrap().to_owned(), offer)
}

fn revoked() -> Option<String> {
    Some("TOKEN_REVOKED".to_owned())
}

#[tokio::test]
async fn a_token_that_ends_soon_is_replaced_and_opens_nothing_once_the_new_one_is_used() {
    let node = Node::new().await;
    let mut worker = node.welcomed(&node.token).await;
    let (new, offer) = offered(&mut worker).await;
    assert_ne!(new, node.token);
    assert!(offer["data"]["expiresAt"].is_string() && offer["data"]["offerId"].is_string(), "{offer}");
    assert_eq!(offer["messageId"], offer["data"]["offerId"], "an answer names the offer itself");

    // Nothing is lost before the worker was welcomed with the new one.
    drop(Worker::connect(&node.controller.gateway(), &node.id, &new).await);
    assert_eq!(node.refusal(&node.token).await, None);
    let mut worker = node.welcomed(&new).await;
    assert_eq!(node.refusal(&node.token).await, revoked());
    assert_eq!(node.refusal(&new).await, None);

    // Whoever shows the old one has a copy of it: that is recorded once, however often it is shown.
    let (_, trail) = node.owner.get("/audit?action=token.reuse").await;
    let records = trail["data"].as_array().unwrap();
    assert_eq!((records.len(), &records[0]["nodeId"]), (1, &json!(node.id)), "{trail}");

    // The new one is replaced in its turn.
    let (newer, _) = offered(&mut worker).await;
    let _worker = node.welcomed(&newer).await;
    assert_eq!((node.refusal(&new).await, node.refusal(&newer).await), (revoked(), None));
    let types = ["node.registered", "node.installation_started", "node.connected"];
    node.owner.await_events(&node.id, &types).await;
}

#[tokio::test]
async fn an_offer_that_is_not_taken_is_made_anew_and_the_one_before_opens_nothing() {
    let node = Node::new().await;
    let mut worker = node.welcomed(&node.token).await;
    let (first, _) = offered(&mut worker).await;
    let (second, _) = offered(&mut worker).await;
    assert_eq!((node.refusal(&first).await, node.refusal(&node.token).await), (revoked(), None));
    let _worker = node.welcomed(&second).await;
    assert_eq!((node.refusal(&node.token).await, node.refusal(&second).await), (revoked(), None));
}

#[tokio::test]
async fn an_offer_that_is_given_back_opens_nothing_and_its_reason_is_kept() {
    let node = Node::new().await;
    let mut worker = node.welcomed(&node.token).await;
    let (new, offer) = offered(&mut worker).await;
    let error = json!({"code": "FILE_FAILED", "message": "no room\u{1b}[31m for it", "details": {}});
    let answer = json!({"originalMessageId": offer["messageId"], "status": "rejected", "error": error});
    worker.send("command.ack", answer.clone()).await;
    eventually("the offer's end", async || match node.refusal(&new).await {
        Some(code) if code == "TOKEN_REVOKED" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let kept =
        node.controller.text_in_database("SELECT rejection FROM tokens WHERE rejection IS NOT NULL").await;
    assert_eq!(kept, "FILE_FAILED: no room[31m for it");
    // Asking again later is no pile of tokens, and answering twice changes nothing.
    let (another, _) = offered(&mut worker).await;
    worker.send("command.ack", answer).await;
    worker.ping().await;
    let _worker = node.welcomed(&another).await;
}

#[tokio::test]
async fn an_answer_to_something_else_ends_no_token() {
    let node = Node::new().await;
    let mut worker = node.welcomed(&node.token).await;
    for id in [uuid::Uuid::nil(), uuid::Uuid::new_v4()] {
        worker.send("command.ack", json!({"originalMessageId": id, "status": "rejected"})).await;
    }
    worker.ping().await;
    assert_eq!(node.refusal(&node.token).await, None);
    let (new, _) = offered(&mut worker).await;
    assert_eq!(node.refusal(&new).await, None);
}

#[tokio::test]
async fn an_offer_outlives_the_controller_that_made_it_and_its_value_is_kept_nowhere() {
    let mut node = Node::new().await;
    let mut worker = node.welcomed(&node.token).await;
    let (new, _) = offered(&mut worker).await;
    let signature = new.rsplit('.').next().unwrap().to_owned();
    let address = node.controller.address();
    node.controller.stop().await;
    for file in std::fs::read_dir(&node.controller.config.data_dir).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(
            !bytes.windows(signature.len()).any(|it| it == signature.as_bytes()),
            "the token is on the disk"
        );
    }
    node.controller.start_again(address).await;
    let _worker = node.welcomed(&new).await;
    assert_eq!((node.refusal(&node.token).await, node.refusal(&new).await), (revoked(), None));
}

#[tokio::test]
async fn whoever_revokes_a_nodes_tokens_revokes_its_offers_too() {
    let node = Node::new().await;
    let mut worker = node.welcomed(&node.token).await;
    let (new, _) = offered(&mut worker).await;
    let (status, answer) =
        node.owner.post(&format!("/nodes/{}/regenerate-credentials", node.id), json!({})).await;
    assert!(status.is_success(), "{answer}");
    assert_eq!(worker.closed().await, 4401);
    assert_eq!((node.refusal(&new).await, node.refusal(&node.token).await), (revoked(), revoked()));
    let _worker = node.welcomed(answer["token"].as_str().unwrap()).await;
}
