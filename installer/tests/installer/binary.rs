//! The program itself: exit status and words, up to where it would need a machine of its own.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::world::{NODE, token};

fn aio_installer(arguments: &[&str], variables: &[(&str, &str)], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_aio-installer"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn code_and_status(output: &Output) -> (String, i32) {
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert!(answer["error"]["cure"].is_string(), "{answer}");
    (answer["error"]["code"].as_str().unwrap().to_owned(), output.status.code().unwrap())
}

#[test]
fn every_kind_of_bad_token_has_its_code_and_exit_status() {
    let expired = token("https://aiwm.example", "x", &json!({ "exp": 1 }));
    let user = token("https://aiwm.example", "x", &json!({ "type": "user" }));
    let good = token("https://aiwm.example", "x", &json!({}));
    let cut = good.rsplit_once('.').unwrap().0;
    let table: [(&[&str], &str, &str); 8] = [
        (&[], "", "TOKEN_MISSING"),
        (&["--token", ""], "", "TOKEN_MISSING"),
        (&["--token", "garbage"], "", "TOKEN_INVALID"),
        (&["--token", cut], "", "TOKEN_INVALID"),
        (&["--token", &user], "", "TOKEN_INVALID"),
        (&["--token", &expired], "", "TOKEN_EXPIRED"),
        (&["--token-file", "-"], &expired, "TOKEN_EXPIRED"),
        (&["--token", &good, "--node-id", "ffffffffffffffffffffffff"], "", "TOKEN_FOREIGN"),
    ];
    for (arguments, input, code) in table {
        let output = aio_installer(&[arguments, &["--output", "json"]].concat(), &[], input);
        assert_eq!(code_and_status(&output), (code.to_owned(), 78), "{arguments:?}");
    }
}

#[test]
fn the_older_unit_s_environment_works() {
    let good = token("https://aiwm.example", "x", &json!({}));
    let foreign = [("AIO_NODE_TOKEN", good.as_str()), ("AIO_NODE_ID", "ffffffffffffffffffffffff")];
    let output = aio_installer(&["--output", "json"], &foreign, "");
    assert_eq!(code_and_status(&output).0, "TOKEN_FOREIGN");
    let expired = token("https://aiwm.example", "x", &json!({ "exp": 1 }));
    let ours = [("AIO_NODE_TOKEN", expired.as_str()), ("AIO_NODE_ID", NODE), ("AIO_VERSION", "v1.0.0")];
    let output = aio_installer(&["--output", "json"], &ours, "");
    assert_eq!(code_and_status(&output).0, "TOKEN_EXPIRED");
}

#[test]
fn a_failure_is_one_sentence_and_a_cure_on_standard_error_without_the_token() {
    let expired = token("https://aiwm.example", "x", &json!({ "exp": 1 }));
    let output = aio_installer(&["--token", &expired], &[("AIO_LOG", "trace")], "");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("error[TOKEN_EXPIRED]: "), "{text}");
    assert!(text.contains("\n  cure: "), "{text}");
    assert!(!text.contains(&expired), "{text}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_command_line_that_is_not_understood_ends_with_2() {
    assert_eq!(aio_installer(&["--no-such-flag"], &[], "").status.code(), Some(2));
    assert_eq!(aio_installer(&["--timeout", "soon"], &[], "").status.code(), Some(2));
    let insecure = |value| aio_installer(&[], &[("AIO_INSECURE_HTTP", value)], "").status.code();
    assert_eq!((insecure("1"), insecure("false"), insecure("maybe")), (Some(78), Some(78), Some(2)));
}

/// Where this test runs as root on a machine of systemd's, there is nothing to see.
#[test]
fn a_machine_that_cannot_be_installed_on_is_refused() {
    let root = rustix::process::geteuid().is_root();
    let code = match (root, std::path::Path::new("/run/systemd/system").is_dir()) {
        (false, _) => ("NOT_ROOT".to_owned(), 77),
        (true, false) => ("SYSTEMD_MISSING".to_owned(), 69),
        (true, true) => return,
    };
    let good = token("https://aiwm.invalid", "x", &json!({}));
    let output = aio_installer(&["--token-file", "-", "--output", "json"], &[], &good);
    assert_eq!(code_and_status(&output), code);
}

/// A standard output or error that takes nothing: the reader has gone, or the disk is full.
fn takes_nothing() -> [Stdio; 2] {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    [writer.into(), std::fs::File::options().write(true).open("/dev/full").unwrap().into()]
}

#[test]
fn words_that_cannot_be_printed_change_no_exit_status_and_a_lost_answer_is_no_success() {
    let run = |arguments: &[&str], stdout: Stdio, stderr: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aio-installer"));
        command.args(arguments).env_clear().env("AIO_LOG", "trace").stdin(Stdio::null());
        command.stdout(stdout).stderr(stderr).status().unwrap().code()
    };
    for lost in takes_nothing() {
        assert_eq!(run(&["--token", "garbage"], Stdio::null(), lost), Some(78));
    }
    for lost in takes_nothing() {
        assert_eq!(run(&["--token", "garbage", "--output", "json"], lost, Stdio::null()), Some(78));
    }
    for lost in takes_nothing() {
        assert_eq!(run(&["--help"], lost, Stdio::null()), Some(74));
    }
    for lost in takes_nothing() {
        assert_eq!(run(&["--no-such-flag"], Stdio::null(), lost), Some(2));
    }
}
