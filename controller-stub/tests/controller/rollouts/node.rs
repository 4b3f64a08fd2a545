//! A worker that answers offers as a real one does, through updates and restarts of its controller.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    harness::{Client, Controller},
    peers::Worker,
};

/// How a worker's update ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Good,
    Faulty,
}

/// A worker that lives until it is dropped, through updates and restarts of its controller.
pub(super) struct Node {
    pub(super) id: String,
    /// Ids of the offers that it has heard of.
    offers: Arc<Mutex<Vec<String>>>,
    pub(super) permits: Arc<AtomicU32>,
    stop: CancellationToken,
    _life: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Life {
    kind: Kind,
    gateway: String,
    id: String,
    token: String,
    version: String,
    update: Value,
    offers: Arc<Mutex<Vec<String>>>,
    permits: Arc<AtomicU32>,
}

impl Node {
    pub(super) async fn start(
        controller: &Controller,
        owner: &Client,
        name: &str,
        kind: Kind,
        update: Value,
    ) -> Self {
        let id = owner.add_node(name).await;
        let token = owner.token_of(&id).await;
        Self::live(controller, &id, &token, kind, update)
    }

    pub(super) fn live(controller: &Controller, id: &str, token: &str, kind: Kind, update: Value) -> Self {
        let (offers, permits) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicU32>::default());
        let mut life = Life {
            kind,
            gateway: controller.gateway(),
            id: id.to_owned(),
            token: token.to_owned(),
            version: "1.0.0".into(),
            update,
            offers: offers.clone(),
            permits: permits.clone(),
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let life = tokio::spawn(async move {
            stopped.run_until_cancelled(async { life.live().await }).await;
        });
        Self { id: id.to_owned(), offers, permits, stop, _life: life }
    }

    pub(super) fn offers(&self) -> usize {
        self.offers.lock().unwrap().len()
    }
}

impl Life {
    async fn live(&mut self) {
        loop {
            let Some(mut worker) = Worker::attempt(&self.gateway, &self.id, &self.token).await else {
                // The controller is away.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            worker.register_updating(&self.version, self.update.clone()).await;
            while let Some(message) = worker.receive_within(Duration::from_secs(60)).await {
                if self.hear(&mut worker, &message).await {
                    break;
                }
            }
        }
    }

    /// Says whether the worker has left to come back as another version.
    async fn hear(&mut self, worker: &mut Worker, message: &Value) -> bool {
        match message["type"].as_str().unwrap() {
            "register.ack" => {
                for command in message["data"]["pendingCommands"].as_array().unwrap().clone() {
                    if Box::pin(self.hear(worker, &command)).await {
                        return true;
                    }
                }
                if self.update["state"] == "probation" {
                    self.conclude("succeeded");
                    worker.register_updating(&self.version, self.update.clone()).await;
                }
                false
            }
            "node.update" => {
                let offer = &message["data"];
                assert_eq!(offer["indexSerial"], 7, "{offer}");
                assert!(offer["releasesUrl"].as_str().unwrap().ends_with("/releases"), "{offer}");
                let id = offer["updateId"].as_str().unwrap().to_owned();
                if self.update["updateId"] != id.as_str() {
                    self.offers.lock().unwrap().push(id.clone());
                    self.update["updateId"] = json!(id);
                    self.update["target"] = offer["version"].clone();
                    for state in ["offered", "staging", "staged", "rehearsing", "awaiting"] {
                        self.update["state"] = json!(state);
                        worker.register_updating(&self.version, self.update.clone()).await;
                    }
                }
                false
            }
            "update.permit" if self.update["state"] == "awaiting" => {
                assert_eq!(message["data"]["updateId"], self.update["updateId"]);
                self.permits.fetch_add(1, Ordering::SeqCst);
                worker
                    .send("node.disconnecting", json!({"reason": "update", "expectedBackSeconds": 30}))
                    .await;
                match self.kind {
                    Kind::Good => {
                        self.update["state"] = json!("probation");
                        self.version =
                            self.update["target"].as_str().unwrap().trim_start_matches('v').to_owned();
                    }
                    Kind::Faulty => self.conclude("faulty"),
                }
                while worker.receive_within(Duration::from_secs(10)).await.is_some() {}
                true
            }
            "update.cancel" => {
                assert_eq!(message["data"]["updateId"], self.update["updateId"]);
                self.conclude("refused");
                self.update["last"]["code"] = json!("UPDATE_CANCELLED");
                worker.register_updating(&self.version, self.update.clone()).await;
                false
            }
            _ => false,
        }
    }

    fn conclude(&mut self, verdict: &str) {
        let update = &mut self.update;
        update["last"] = json!({"updateId": update["updateId"], "from": "v1.0.0", "version": update["target"],
            "verdict": verdict, "at": "2025-12-11T12:00:00.000Z"});
        if verdict == "faulty" {
            update["last"]["code"] = json!("UPDATE_FAULTY");
            update["last"]["message"] = json!("it ended at once");
        }
        update["state"] = json!("idle");
        update.as_object_mut().unwrap().remove("updateId");
        update.as_object_mut().unwrap().remove("target");
    }
}
