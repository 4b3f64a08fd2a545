//! Everything at once, with its place; and never milder than the daemon itself.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::*;

const NOW: i64 = 1_765_454_400;

fn token(ctl: &str, ends: i64) -> String {
    let claims = serde_json::json!({
        "sub": "69396100cd71623c7bbfbfee", "type": "node", "jti": "j", "iat": 1, "exp": ends, "ctl": ctl,
        "api": "https://aiwm.example",
    });
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part("{}"), part(&claims.to_string()), part("signature"))
}

/// A folder with a configuration and a token, and an environment.
struct Setting {
    folder: tempfile::TempDir,
    env: HashMap<&'static str, String>,
}

impl Setting {
    fn new(config: &str) -> Self {
        let setting = Self { folder: tempfile::tempdir().unwrap(), env: HashMap::new() };
        std::fs::write(setting.at("config.toml"), config).unwrap();
        setting.token(&token("wss://aiwm.example/ws/node", NOW + 3600))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn token(self, text: &str) -> Self {
        std::fs::write(self.at("token"), text).unwrap();
        self
    }

    fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.insert(name, value.to_owned());
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        std::fs::write(self.at(name), content).unwrap();
        self
    }

    fn flags(&self) -> Flags {
        Flags { config: Some(self.at("config.toml")), token_file: Some(self.at("token")), ..Flags::default() }
    }

    fn findings(&self) -> Vec<Finding> {
        let layout = Layout::under(self.folder.path());
        let env = &|name: &str| self.env.get(name).cloned();
        Examination::of(&self.flags(), &layout, env, Timestamp::from_millis(NOW * 1000))
    }

    /// In short: how grave, which code, and the key, variable or file's name.
    fn found(&self) -> Vec<(Severity, ErrorCode, String)> {
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let short = |finding: Finding| {
            let Place { file, key, variable, .. } = finding.place;
            let place = key.or(variable).or(file.map(name)).unwrap_or_default();
            (finding.severity, finding.code, place)
        };
        self.findings().into_iter().map(short).collect()
    }
}

fn error(code: ErrorCode, place: &str) -> (Severity, ErrorCode, String) {
    (Severity::Error, code, place.to_owned())
}

fn warning(code: ErrorCode, place: &str) -> (Severity, ErrorCode, String) {
    (Severity::Warning, code, place.to_owned())
}

#[test]
fn an_empty_configuration_and_a_token_are_all_that_is_needed() {
    assert_eq!(Setting::new("").findings(), []);
}

#[test]
fn all_that_is_wrong_is_told_at_once_and_with_its_line() {
    let config = "contoller_endpoint = \"wss://x\"\ncontroller_endpoint = \"ws://aiwm.example\"\nproxy = \"socks5://p:1\"\nlog = \"a=b=c\"\nca_file = \"/nonexistent/ca.pem\"\n";
    let setting = Setting::new(config).env("AIO_INSECURE_HTTP", "perhaps").token("garbage");
    assert_eq!(
        setting.found(),
        [
            error(ErrorCode::ConfigInvalid, "contoller_endpoint"),
            error(ErrorCode::ConfigInvalid, "AIO_INSECURE_HTTP"),
            error(ErrorCode::InsecureUrl, "controller_endpoint"),
            error(ErrorCode::ConfigInvalid, "proxy"),
            error(ErrorCode::ConfigInvalid, "log"),
            error(ErrorCode::FileFailed, "ca_file"),
            error(ErrorCode::TokenInvalid, "token"),
        ]
    );
    let lines: Vec<_> = setting.findings().iter().map(|finding| finding.place.line).collect();
    assert_eq!(lines, [Some(1), None, Some(2), Some(3), Some(4), Some(5), None]);
}

#[test]
fn a_variable_overrules_the_file_and_is_what_is_judged() {
    let setting = Setting::new("log = \"a=b=c\"\n").env("AIO_LOG", "debug");
    assert_eq!(setting.found(), []);
    let setting = Setting::new("log = \"debug\"\n").env("AIO_LOG", "a=b=c");
    assert_eq!(setting.found(), [error(ErrorCode::ConfigInvalid, "AIO_LOG")]);
}

#[test]
fn what_works_and_is_worth_a_word_is_a_warning() {
    let setting = Setting::new("nvml_library = \"/nonexistent/libnvidia-ml.so.1\"\n");
    assert_eq!(setting.found(), [warning(ErrorCode::ConfigInvalid, "nvml_library")]);
    let setting = Setting::new("").token(&token("wss://aiwm.example/ws/node", NOW - 1));
    assert_eq!(setting.found(), [warning(ErrorCode::TokenExpired, "")]);
    let setting = Setting::new("insecure_http = true\n").token(&token("ws://aiwm.example", NOW + 1));
    assert_eq!(setting.found(), [warning(ErrorCode::InsecureUrl, "")]);
}

#[test]
fn authorities_that_only_their_owner_may_read_are_of_no_use_to_the_daemon() {
    let authority = rcgen::generate_simple_self_signed(["aiwm.example".to_owned()]).unwrap().cert.pem();
    let setting = Setting::new("").file("ca.pem", &authority);
    let path = setting.at("ca.pem").to_str().unwrap().to_owned();
    let setting = setting.env("AIO_CA_FILE", &path);
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    assert_eq!(setting.found(), []);
    mode(0o600);
    assert_eq!(setting.found(), [warning(ErrorCode::ConfigInvalid, "AIO_CA_FILE")]);
    let setting = setting.file("ca.pem", "no certificate");
    assert_eq!(setting.found(), [error(ErrorCode::ConfigInvalid, "AIO_CA_FILE")]);
}

#[test]
fn a_token_of_another_node_and_one_for_an_exposed_controller_are_found() {
    let setting = Setting::new("").env("AIO_NODE_ID", "aaaaaaaaaaaaaaaaaaaaaaaa");
    assert_eq!(setting.found(), [error(ErrorCode::TokenForeign, "AIO_NODE_ID")]);
    let setting = Setting::new("").token(&token("ws://aiwm.example", NOW + 1));
    assert_eq!(setting.found(), [error(ErrorCode::InsecureUrl, "")]);
    let setting = Setting::new("").token("");
    assert_eq!(setting.found(), [error(ErrorCode::TokenMissing, "token")]);
}

#[test]
fn a_file_that_was_named_must_be_there_and_the_usual_one_need_not() {
    let setting = Setting::new("");
    std::fs::remove_file(setting.at("config.toml")).unwrap();
    assert_eq!(setting.found(), [error(ErrorCode::ConfigInvalid, "config.toml")]);
}

#[test]
fn whatever_the_daemon_refuses_is_found() {
    for (config, variable, value) in [
        ("= =", "AIO_X", ""),
        ("zzz = 1", "AIO_X", ""),
        ("insecure_http = 1", "AIO_X", ""),
        ("log = [1]", "AIO_X", ""),
        ("[updates]\nwindow = \"at night\"", "AIO_X", ""),
        ("[updates]\nmode = \"always\"", "AIO_X", ""),
        ("", "AIO_NODE_ID", "no-id"),
        ("", "AIO_CONTROLLER_ENDPOINT", "https://aiwm.example"),
        ("", "AIO_PROXY", "ftp://x"),
        ("controller_endpoint = \"wss://me:hunter2@aiwm.example\"", "AIO_X", ""),
    ] {
        let setting = Setting::new(config).env(variable, value);
        let daemon = WorkerConfig::load(&setting.flags(), &|name| setting.env.get(name).cloned());
        let code = daemon.unwrap_err().code;
        let findings = setting.findings();
        let first = findings.iter().find(|finding| finding.severity == Severity::Error);
        assert_eq!(
            first.map(|finding| finding.code),
            Some(code),
            "{config} {variable}={value}: {findings:?}"
        );
        assert!(findings.iter().all(|finding| !finding.message.contains("hunter2")), "{findings:?}");
    }
}
