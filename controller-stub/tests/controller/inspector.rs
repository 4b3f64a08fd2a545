//! Asks by operation of the OpenAPI document, and checks every answer against it: status, content and code.

use std::collections::BTreeSet;

use reqwest::RequestBuilder;
use serde_json::Value;

use crate::{
    harness::{Client, Controller},
    schema::Schemas,
};

/// Asks by operation, and checks each answer against the document.
pub(crate) struct Inspector {
    document: Value,
    /// Which operation has answered with which status.
    pub seen: BTreeSet<(String, u16)>,
}

/// No rollout has this id.
pub(crate) const UNKNOWN_ROLLOUT: &str = "01890a5d-ac96-774b-bceb-302099a8057a";

/// An operation of the document.
#[derive(Clone)]
pub(crate) struct Operation {
    pub id: String,
    method: reqwest::Method,
    pub path: String,
    pub value: Value,
}

impl Operation {
    pub(crate) fn is_opened_by(&self, scheme: &str) -> bool {
        self.value["security"].as_array().is_some_and(|it| it.iter().any(|it| it.get(scheme).is_some()))
    }

    pub(crate) fn is_opened_by_nobody_but(&self, scheme: &str) -> bool {
        self.is_opened_by(scheme) && self.value["security"].as_array().unwrap().len() == 1
    }

    pub(crate) fn takes_query(&self) -> bool {
        self.value["parameters"].as_array().is_some_and(|it| it.iter().any(|it| it["in"] == "query"))
    }

    pub(crate) fn takes_body(&self) -> bool {
        self.value.get("requestBody").is_some()
    }

    pub(crate) fn documents(&self, status: u16) -> bool {
        self.value["responses"].get(status.to_string()).is_some()
    }

    pub(crate) fn of(&self, id: &str) -> String {
        self.path
            .replace("{id}", id)
            .replace("{version}", "v1.0.0")
            .replace("{file}", "linux-amd64")
            .replace("{letter}", "evt_unknown")
            .replace("{alarm}", UNKNOWN_ROLLOUT)
            .replace("{webhook}", UNKNOWN_ROLLOUT)
            .replace("{silence}", UNKNOWN_ROLLOUT)
            .replace("{rollout}", UNKNOWN_ROLLOUT)
            .replace("{order}", "abort")
            .replace("{group}", "gpu")
    }
}

impl Inspector {
    pub(crate) async fn new(controller: &Controller) -> Self {
        Self { document: controller.nobody().get("/openapi.json").await.1, seen: BTreeSet::new() }
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        let mut operations = Vec::new();
        for (path, item) in self.document["paths"].as_object().unwrap() {
            for (method, value) in item.as_object().unwrap() {
                operations.push(Operation {
                    id: value["operationId"].as_str().unwrap().to_owned(),
                    method: method.to_uppercase().parse().unwrap(),
                    path: path.clone(),
                    value: value.clone(),
                });
            }
        }
        operations
    }

    pub(crate) fn operation(&self, id: &str) -> Operation {
        self.operations().into_iter().find(|it| it.id == id).unwrap_or_else(|| panic!("no operation {id}"))
    }

    /// Sends a request, checks that its answer is documented, and says its status and body.
    pub(crate) async fn ask(
        &mut self,
        client: &Client,
        operation: &Operation,
        path: &str,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> (u16, Value) {
        let answer = shape(client.request(operation.method.clone(), path)).send().await.unwrap();
        let status = answer.status().as_u16();
        let what = format!("{} {path}: {status}", operation.id);
        let response = operation.value["responses"].get(status.to_string());
        let response = response.unwrap_or_else(|| panic!("{what} is not documented"));
        self.seen.insert((operation.id.clone(), status));
        let kind = answer
            .headers()
            .get("content-type")
            .map(|it| it.to_str().unwrap().split(';').next().unwrap().to_owned());
        let documented = response["content"].as_object();
        let Some(content) = documented.filter(|_| status != 101) else { return (status, Value::Null) };
        let kind = kind.unwrap_or_else(|| panic!("{what} has no content type"));
        let content =
            content.get(&kind).unwrap_or_else(|| panic!("{what} is {kind}, which is not documented"));
        let text = answer.text().await.unwrap();
        let Some(schema) = content.get("schema").filter(|_| kind == "application/json") else {
            return (status, Value::Null);
        };
        let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{what}: {text}"));
        if let Err(problem) = Schemas(&self.document).check(schema, &body) {
            panic!("{what}: {problem}\n{body}");
        }
        if status >= 400 {
            let code = body["code"].as_str().unwrap();
            let description = response["description"].as_str().unwrap();
            assert!(description.contains(code), "{what}: the document says {description:?}, not {code}");
        }
        (status, body)
    }

    pub(crate) async fn expect(
        &mut self,
        client: &Client,
        id: &str,
        node: &str,
        expected: u16,
        shape: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Value {
        let operation = self.operation(id);
        let (status, body) = self.ask(client, &operation, &operation.of(node), shape).await;
        assert_eq!(status, expected, "{id}: {body}");
        body
    }
}
