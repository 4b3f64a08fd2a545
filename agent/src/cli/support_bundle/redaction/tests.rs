//! What is taken out, and what stays.

use proptest::prelude::*;

use super::*;

const TOKEN: &str =
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI2OTM5NjEwMGNkNzE2MjNjN2JiZmJmZWUifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ";
const SIGNATURE: &str = "c2lnbmF0dXJlLXNpZ25hdHVyZQ";

fn redact(text: &str) -> String {
    Redactor::default().redact(text)
}

#[test]
fn whatever_looks_like_a_token_goes_wherever_it_stands() {
    assert_eq!(redact(&format!("node x{TOKEN}, and on")), "node x[redacted], and on");
    assert_eq!(redact(&format!("{{\"a\":\"{TOKEN}\"}}")), "{\"a\":\"[redacted]\"}");
    assert_eq!(redact(&format!("{TOKEN}.more {TOKEN}")), "[redacted] [redacted]");
    let cut_off = TOKEN.split_at(TOKEN.len() - 9).0;
    assert_eq!(redact(cut_off), "[redacted]");
    for kept in ["eyJ", "eyJhbGci.eyJzdWIi", "eyJ.eyJ..", "1.2.3", "aio_worker.session.socket"] {
        assert_eq!(redact(kept), kept);
    }
}

#[test]
fn a_known_token_goes_as_a_whole_and_its_signature_alone() {
    let mut redactor = Redactor::default();
    redactor.know(&format!("{TOKEN}\n0198c5a2-offer-of-it\n"));
    redactor.know("an-opaque-token");
    redactor.know("short");
    assert_eq!(redactor.redact(&format!("a {TOKEN} b {SIGNATURE} c")), "a [redacted] b [redacted] c");
    assert_eq!(redactor.redact("an-opaque-token, short"), "[redacted], short");
    assert!(!format!("{redactor:?}").contains("opaque"), "{redactor:?}");
}

#[test]
fn a_url_loses_its_login_and_keeps_the_rest() {
    for (text, left) in [
        ("https://me:pass@proxy.example:3128/x?y=a@b", "https://[redacted]@proxy.example:3128/x?y=a@b"),
        ("proxy = \"http://us\\\"er:p@p\"", "proxy = \"http://[redacted]@p\""),
        ("http://user:p@ss@host", "http://[redacted]@host"),
        ("wss://aiwm.example/ws/node, a@b", "wss://aiwm.example/ws/node, a@b"),
        (r#"["http://a/","b@c"]"#, r#"["http://a/","b@c"]"#),
        (r#"["http://a","b@c"]"#, r#"["http://a","b@c"]"#),
    ] {
        assert_eq!(redact(text), left);
    }
}

#[test]
fn what_is_assigned_to_the_name_of_a_secret_goes() {
    for (text, left) in [
        ("Environment=\"AIO_NODE_TOKEN=no jwt\" A=b", "Environment=\"AIO_NODE_TOKEN=[redacted]\" A=b"),
        ("Environment=AIO_NODE_TOKEN=opaque A=b", "Environment=AIO_NODE_TOKEN=[redacted] A=b"),
        ("Environment=X_PASSWORD='a b' A=b", "Environment=X_PASSWORD='[redacted]' A=b"),
        ("ExecStart=x --token=opaque -v", "ExecStart=x --token=[redacted] -v"),
        ("ExecStart=x --token opaque -v", "ExecStart=x --token [redacted] -v"),
        ("api-key = \"a\\\"b\" # why", "api-key = \"[redacted]\" # why"),
        ("token = '''\na\nb'''\nlog = 1", "token = '''[redacted]'''\nlog = 1"),
        (r#"{"clientSecret": "a", "b": 1}"#, r#"{"clientSecret": "[redacted]", "b": 1}"#),
        (r#"{"m":"{\"password\":\"a b\"}"}"#, r#"{"m":"{\"password\":\"[redacted]\"}"}"#),
        (r#"token=Some("a b") next=1"#, r#"token=[redacted]") next=1"#),
        ("proxy = \"me:pass@host:1\"", "proxy = \"[redacted]@host:1\""),
        ("HTTPS_PROXY=http://host:1", "HTTPS_PROXY=http://host:1"),
        ("SetCredential=token:a\\\n b\nUser=x", "SetCredential=[redacted]\nUser=x"),
        ("Authorization: Bearer opaque", "Authorization: Bearer [redacted]"),
        ("authorization: Basic bWU6cGFzcw==\r\n", "authorization: Basic [redacted]\r\n"),
    ] {
        assert_eq!(redact(text), left);
    }
}

#[test]
fn what_helps_to_understand_stays() {
    for text in [
        "LoadCredential=token:/etc/aio-worker/token",
        "cannot read the token: Permission denied",
        r#"{"check":"token","result":"ok","reason":"of node 69396100cd71623c7bbfbfee"}"#,
        "token_expires_at=2026-01-01T00:00:00Z token_file=/etc/aio-worker/token",
        "--token-file /etc/aio-worker/token",
        "Pass --token, --token-file or AIO_NODE_TOKEN; the controller makes one",
        "log = \"info,aio_worker::session=debug\"",
    ] {
        assert_eq!(redact(text), text);
    }
}

#[test]
fn the_signature_of_a_token_that_was_seen_goes_elsewhere_too() {
    let mut redactor = Redactor::default();
    redactor.notice(&format!("of another node: {TOKEN}"));
    assert_eq!(redactor.redact(&format!("signed {SIGNATURE}.")), "signed [redacted].");
}

#[test]
fn what_a_unit_assigns_is_found_elsewhere_too() {
    let mut redactor = Redactor::default();
    redactor.learn("[Service]\nEnvironment=\"AIO_NODE_TOKEN=opaque-and-long\"\n");
    assert_eq!(redactor.redact("started with opaque-and-long"), "started with [redacted]");
}

proptest! {
    #[test]
    fn no_text_panics_and_no_known_secret_comes_through(
        before in ".{0,40}", secret in "[A-Za-z0-9_.-]{12,40}", after in "[=:\"'\\\\ a-zé\n]{0,40}"
    ) {
        let mut redactor = Redactor::default();
        redactor.know(&secret);
        let left = redactor.redact(&format!("{before}{secret}{after}"));
        prop_assert!(!left.contains(&secret), "{left}");
        prop_assert_eq!(redactor.redact(&left), left);
    }

    #[test]
    fn no_token_comes_through(before in "(?s).{0,40}", after in "(?s).{0,40}") {
        let left = redact(&format!("{before}{TOKEN}{after}"));
        prop_assert!(!left.contains("c2lnbmF0"), "{left}");
    }
}
