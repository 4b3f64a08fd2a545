//! Precedence, the older unit's variables, and every refusal.

use std::collections::HashMap;

use aio_installer::Failure;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::ExposeSecret;

use super::*;

const NODE: &str = "69396100cd71623c7bbfbfee";

fn token_of(node: &str, ctl: &str) -> String {
    let claims = serde_json::json!({
        "sub": node, "type": "node", "jti": "j", "iat": 1, "exp": 2, "ctl": ctl, "api": "https://aiwm.example",
    });
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part("{}"), part(&claims.to_string()), part("signature"))
}

pub(crate) fn token() -> String {
    token_of(NODE, "wss://aiwm.example/ws/node")
}

struct Setting {
    folder: tempfile::TempDir,
    flags: Flags,
    env: HashMap<&'static str, String>,
}

impl Setting {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let setting = Self { flags: Flags::default(), env: HashMap::new(), folder };
        setting.file("").flag_token(&token())
    }

    fn file(mut self, text: &str) -> Self {
        let path = self.folder.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        self.flags.config = Some(path);
        self
    }

    fn flag_token(mut self, token: &str) -> Self {
        self.flags.token = Some(token.into());
        self
    }

    fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.insert(name, value.to_owned());
        self
    }

    fn without_token(mut self) -> Self {
        self.flags.token = None;
        self
    }

    fn load(&self) -> Result<WorkerConfig, Failure> {
        WorkerConfig::load(&self.flags, &|name| self.env.get(name).cloned())
    }

    fn refusal(&self) -> ErrorCode {
        self.load().unwrap_err().code
    }
}

#[test]
fn a_token_is_all_that_is_needed_even_an_expired_one() {
    let config = Setting::new().load().unwrap();
    assert_eq!(config.node_id.as_str(), NODE);
    let credentials = config.installed_credentials().unwrap();
    assert_eq!(credentials.endpoint.to_string(), "wss://aiwm.example/ws/node");
    assert_eq!(config.runtime_dir, Path::new("/run/aio-worker"));
    assert_eq!(config.nvml_library, Path::new("libnvidia-ml.so.1"));
}

#[test]
fn the_environment_overrules_the_file_and_the_file_the_token() {
    let from_file =
        Setting::new().file("controller_endpoint = \"wss://file.example/ws/node\"\nlog = \"warn\"");
    let config = from_file.load().unwrap();
    assert_eq!(config.installed_credentials().unwrap().endpoint.to_string(), "wss://file.example/ws/node");
    assert_eq!(config.log, "warn");
    let config = from_file
        .env("AIO_CONTROLLER_ENDPOINT", "ws://localhost:3305/ws/node")
        .env("AIO_LOG", "debug")
        .load()
        .unwrap();
    assert_eq!(config.installed_credentials().unwrap().endpoint.to_string(), "ws://localhost:3305/ws/node");
    assert_eq!(config.log, "debug");
}

#[test]
fn tokens_are_looked_for_from_flag_to_credential() {
    let setting = Setting::new().without_token();
    let other = "aaaaaaaaaaaaaaaaaaaaaaaa";
    let credential = setting.folder.path().join("token");
    std::fs::write(&credential, format!("{}\n", token())).unwrap();
    let folder = setting.folder.path().to_str().unwrap().to_owned();
    let setting = setting.env("CREDENTIALS_DIRECTORY", &folder);
    assert_eq!(setting.load().unwrap().node_id.as_str(), NODE);
    let setting = Setting::new().without_token().env("RUNTIME_DIRECTORY", &folder);
    assert_eq!(setting.load().unwrap().node_id.as_str(), NODE, "the unit has copied it there");
    let mut setting = setting.env("AIO_NODE_TOKEN", &token_of(other, "wss://aiwm.example"));
    assert_eq!(setting.load().unwrap().node_id.as_str(), other);
    setting.flags.token_file = Some(credential);
    assert_eq!(setting.load().unwrap().node_id.as_str(), NODE);
}

#[test]
fn a_changed_token_file_is_used_and_one_of_another_node_is_not() {
    let mut setting = Setting::new().without_token();
    let path = setting.folder.path().join("token");
    std::fs::write(&path, token()).unwrap();
    setting.flags.token_file = Some(path.clone());
    let config = setting.load().unwrap();
    let moved = token_of(NODE, "wss://moved.example/ws/node");
    std::fs::write(&path, &moved).unwrap();
    let credentials = config.installed_credentials().unwrap();
    assert_eq!(credentials.endpoint.to_string(), "wss://moved.example/ws/node");
    assert_eq!(credentials.secret.expose_secret(), moved);
    std::fs::write(&path, token_of("aaaaaaaaaaaaaaaaaaaaaaaa", "wss://aiwm.example")).unwrap();
    assert_eq!(config.installed_credentials().unwrap_err().code, ErrorCode::TokenForeign);
}

#[test]
fn what_cannot_be_is_refused_with_its_code() {
    let new = Setting::new;
    assert_eq!(new().file("contoller_endpoint = 1").refusal(), ErrorCode::ConfigInvalid);
    assert_eq!(new().file("insecure_http = \"perhaps\"").refusal(), ErrorCode::ConfigInvalid);
    assert_eq!(new().env("AIO_INSECURE_HTTP", "perhaps").refusal(), ErrorCode::ConfigInvalid);
    assert_eq!(new().env("AIO_CONTROLLER_ENDPOINT", "nowhere").refusal(), ErrorCode::ConfigInvalid);
    assert_eq!(new().env("AIO_NODE_ID", "node-1").refusal(), ErrorCode::ConfigInvalid);
    assert_eq!(new().env("AIO_NODE_ID", "aaaaaaaaaaaaaaaaaaaaaaaa").refusal(), ErrorCode::TokenForeign);
    let exposed = || new().flag_token(&token_of(NODE, "ws://aiwm.example/ws/node"));
    assert_eq!(exposed().refusal(), ErrorCode::InsecureUrl);
    assert!(exposed().env("AIO_INSECURE_HTTP", "true").load().is_ok());
    assert!(exposed().file("insecure_http = true").load().is_ok());
    assert_eq!(new().flag_token("").refusal(), ErrorCode::TokenMissing);
    assert_eq!(new().flag_token("a.b").refusal(), ErrorCode::TokenInvalid);
    let mut named = new();
    named.flags.config = Some("/nonexistent/config.toml".into());
    assert_eq!(named.refusal(), ErrorCode::ConfigInvalid);
}

#[test]
fn an_unknown_key_is_named_with_its_file() {
    let message = Setting::new().file("contoller_endpoint = \"wss://x\"").load().unwrap_err().message;
    assert!(message.contains("contoller_endpoint") && message.contains("config.toml"), "{message}");
}

#[test]
fn the_older_units_variables_are_accepted_together() {
    let config = Setting::new()
        .without_token()
        .env("AIO_NODE_TOKEN", &token())
        .env("AIO_CONTROLLER_ENDPOINT", "wss://older.example/ws/node")
        .env("AIO_NODE_ID", NODE)
        .env("AIO_VERSION", "v1.0.0")
        .load()
        .unwrap();
    assert_eq!(config.installed_credentials().unwrap().endpoint.to_string(), "wss://older.example/ws/node");
    assert_eq!(config.unit_version.as_deref(), Some("v1.0.0"));
}
