//! A node's token, its install script and its plan, and the release files that they lead to.

use std::process::Command;

use aio_protocol::{claims::NodeClaims, error_code::ErrorCode, installation::InstallationPlan};
use controller_stub::commands::{self, For, Issue};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{Controller, answer, refusal};

fn checksum(content: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

#[tokio::test]
async fn a_token_comes_with_everything_that_its_use_takes() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu-worker-01").await;
    let empty = owner.request(Method::POST, &format!("/nodes/{id}/token"));
    let (status, answer) = answer(empty).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(answer["installMethod"], "systemd");
    assert_eq!(answer["daemonVersion"], "v1.0.0");
    assert_eq!(answer["downloadUrl"], format!("{}/releases/v1.0.0/linux-amd64", controller.url()));
    assert_eq!(answer["checksum"], checksum("the daemon"));
    assert_eq!(answer["documentationUrl"], "https://docs.x-or.cloud/aio-worker/installation");

    let claims = NodeClaims::read_unverified(answer["token"].as_str().unwrap()).unwrap();
    assert_eq!(claims.sub.as_str(), id);
    assert_eq!(claims.exp - claims.iat, 31_536_000);
    assert_eq!(answer["expiresAt"], claims.expires_at().to_string());
    assert_eq!((claims.ctl, claims.api, claims.rel), (controller.gateway(), controller.url(), None));

    let script = answer["installScript"].as_str().unwrap();
    for part in
        ["# Node: gpu-worker-01\n", &format!("# Node ID: {id}\n"), "# Version: v1.0.0\n", "# Generated: 20"]
    {
        assert!(script.contains(part), "{part}\n{script}");
    }
    assert!(script.contains(checksum("the installer").trim_start_matches("sha256:")), "{script}");
    assert!(script.contains(&format!("{}/releases/v1.0.0/aio-installer-linux-amd64", controller.url())));
    // The token is kept nowhere.
    for file in std::fs::read_dir(&controller.config.data_dir).unwrap().map(|entry| entry.unwrap().path()) {
        if file.is_file() {
            let content = std::fs::read(&file).unwrap();
            let token = answer["token"].as_str().unwrap().as_bytes();
            assert!(!content.windows(token.len()).any(|window| window == token), "{}", file.display());
        }
    }
}

#[tokio::test]
async fn a_token_request_is_validated_by_field() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let path = format!("/nodes/{}/token", owner.add_node("gpu").await);
    for (body, field) in [
        (json!({"expiresIn": 3599}), "expiresIn"),
        (json!({"expiresIn": 31_536_001}), "expiresIn"),
        (json!({"expiresIn": -1}), "expiresIn"),
        (json!({"expiresIn": 3600.5}), "expiresIn"),
        (json!({"expiresIn": "3600"}), "expiresIn"),
        (json!({"osType": "windows"}), "osType"),
        (json!({"osType": "Linux"}), "osType"),
        (json!({"installMethod": "docker"}), "installMethod"),
        (json!({"daemonVersion": "latest"}), "daemonVersion"),
        (json!({"daemonVersion": "1.0.0"}), "daemonVersion"),
        (json!({"daemonVersion": "../../etc/passwd"}), "daemonVersion"),
        (json!({"daemonVersion": "v9.9.9"}), "daemonVersion"),
        (json!({"daemonVersion": 1}), "daemonVersion"),
        (json!({"expiresin": 3600}), "expiresin"),
        (json!([]), "object"),
        (json!("x"), "object"),
    ] {
        let message = refusal(owner.post(&path, body.clone()).await, 400, "VALIDATION_FAILED");
        assert!(message.contains(field), "{body}: {message}");
    }
    for body in [
        json!({}),
        json!({"expiresIn": 3600}),
        json!({"expiresIn": 31_536_000, "osType": "linux", "installMethod": "systemd", "daemonVersion": "v1.0.0"}),
    ] {
        assert_eq!(owner.post(&path, body.clone()).await.0, 201, "{body}");
    }
}

#[tokio::test]
async fn a_plan_says_what_the_token_promised_though_the_file_has_changed_since() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let old = controller.bearer(&owner.token_of(&id).await);
    let path = format!("/nodes/{id}/installation?platform=linux-amd64");
    let (_, answer) = old.get(&path).await;
    let plan: InstallationPlan = serde_json::from_value(answer).unwrap();
    assert_eq!((plan.checksum.to_string(), plan.size), (checksum("the daemon"), 10));
    assert_eq!(plan.controller_endpoint, controller.gateway());

    std::fs::write(controller.release("linux-amd64"), "altered by somebody").unwrap();
    assert_eq!(old.get(&path).await.1["checksum"], checksum("the daemon"));
    let new = controller.bearer(&owner.token_of(&id).await);
    assert_eq!(new.get(&path).await.1["checksum"], checksum("altered by somebody"));
    assert_eq!(owner.get(&path).await.1["checksum"], checksum("altered by somebody"), "the newest token's");

    refusal(
        old.get(&format!("/nodes/{id}/installation?platform=linux-arm64")).await,
        404,
        "RELEASE_NOT_FOUND",
    );
    let message = refusal(
        old.get(&format!("/nodes/{id}/installation?platform=windows")).await,
        400,
        "VALIDATION_FAILED",
    );
    assert!(message.contains("platform"), "{message}");
}

#[tokio::test]
async fn with_a_release_key_tokens_carry_it_and_plans_carry_the_signature() {
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let controller = Controller::start_with(|config| {
        config.release_public_keys = vec![KEY.into()];
        let folder = config.releases.as_ref().unwrap().join("v1.0.0");
        std::fs::write(folder.join("linux-amd64.minisig"), "untrusted comment: a signature").unwrap();
    })
    .await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    assert_eq!(NodeClaims::read_unverified(&token).unwrap().rel.as_deref(), Some(KEY));
    let (_, plan) = controller.bearer(&token).get(&format!("/nodes/{id}/installation")).await;
    assert_eq!(plan["signature"], "untrusted comment: a signature");
}

#[tokio::test]
async fn without_a_published_release_a_token_can_be_had_and_a_plan_cannot() {
    let controller = Controller::start_with(|config| config.releases = None).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let (status, answer) = owner.post(&format!("/nodes/{id}/token"), json!({})).await;
    assert_eq!(
        (status.as_u16(), &answer["checksum"], &answer["installScript"]),
        (201, &Value::Null, &Value::Null)
    );
    let node = controller.bearer(answer["token"].as_str().unwrap());
    refusal(node.get(&format!("/nodes/{id}/installation")).await, 404, "RELEASE_NOT_FOUND");
}

#[tokio::test]
async fn release_files_are_served_whole_or_in_part_and_nothing_else_is() {
    let controller = Controller::start().await;
    std::fs::write(controller.release("secret"), "not a release file").unwrap();
    let anyone = controller.nobody();
    let whole = anyone.request(Method::GET, "/releases/v1.0.0/linux-amd64").send().await.unwrap();
    assert_eq!(whole.content_length(), Some(10));
    assert_eq!(whole.text().await.unwrap(), "the daemon");
    let part = anyone.request(Method::GET, "/releases/v1.0.0/linux-amd64").header("range", "bytes=4-");
    let part = part.send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.text().await.unwrap().as_str()), (206, "daemon"));
    // Beside the programs, what the manifest lists, and what vouches for it.
    std::fs::write(controller.release("aio-worker.service"), "[Unit]").unwrap();
    std::fs::write(controller.release("SHA256SUMS"), "the sums").unwrap();
    let entry = json!({ "size": 6, "sha256": "a".repeat(64) });
    let manifest = json!({
        "version": "v1.0.0", "commit": "c", "committedAt": "2025-12-11T12:00:00Z", "rust": "1.95.0", "platforms": {},
        "files": { "aio-worker.service": entry },
    });
    std::fs::write(controller.release("manifest.json"), manifest.to_string()).unwrap();
    for (name, content) in [("aio-worker.service", "[Unit]"), ("SHA256SUMS", "the sums")] {
        let served = anyone.request(Method::GET, &format!("/releases/v1.0.0/{name}")).send().await.unwrap();
        assert_eq!(served.text().await.unwrap(), content);
    }
    for path in [
        "/releases/v1.0.0/secret",
        "/releases/v1.0.0/linux-arm64",
        "/releases/v1.0.0/linux-amd64.minisig",
        "/releases/v2.0.0/linux-amd64",
        "/releases/latest/linux-amd64",
        "/releases/v1.0.0%2F..%2Fv1.0.0/linux-amd64",
        "/releases/..%2f..%2f/linux-amd64",
        "/releases/v1.0.0/..%2F..%2F..%2Fdata%2Fcontroller.db",
    ] {
        refusal(anyone.get(path).await, 404, "RELEASE_NOT_FOUND");
    }
}

#[tokio::test]
async fn a_release_file_is_never_another_and_a_part_never_of_another() {
    let controller = Controller::start().await;
    let anyone = controller.nobody();
    let ask = async |name: &str, headers: &[(&'static str, &str)]| {
        let mut request = anyone.request(Method::GET, &format!("/releases/v1.0.0/{name}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let etag = answer.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
        (answer.status().as_u16(), etag, answer.text().await.unwrap())
    };
    for coding in ["identity", "gzip, br", "*;q=0", "identity;q=0"] {
        let (status, _, body) = ask("linux-amd64.minisig", &[("accept-encoding", coding)]).await;
        assert_eq!(status, 404, "{coding}: {body}");
        assert_eq!(ask("linux-amd64", &[("accept-encoding", coding)]).await.2, "the daemon");
    }
    let (_, etag, _) = ask("linux-amd64", &[]).await;
    let etag = etag.unwrap();
    assert_eq!(ask("linux-amd64", &[("if-none-match", &etag)]).await.0, 304);
    let resumed = [("range", "bytes=4-"), ("if-range", &*etag)];
    assert_eq!(ask("linux-amd64", &resumed).await.2, "daemon");
    assert_eq!(ask("linux-amd64", &[("range", "bytes=0-1,4-5")]).await.2, "the daemon");
    let head = anyone.request(Method::HEAD, "/releases/v1.0.0/linux-amd64").send().await.unwrap();
    assert_eq!((head.status().as_u16(), &head.headers()["content-length"]), (200, &"10".parse().unwrap()));

    std::fs::write(controller.release("linux-amd64"), "the other!").unwrap();
    assert_eq!(ask("linux-amd64", &resumed).await.2, "the other!", "the rest would be another file's");
    std::fs::write(controller.release("linux-amd64.minisig"), "signed").unwrap();
    assert_eq!(ask("linux-amd64.minisig", &[("accept-encoding", "identity")]).await.2, "signed");
}

#[tokio::test]
async fn nodes_added_on_the_command_line_appear_while_the_server_runs() {
    let controller = Controller::start().await;
    let add = async |names: [&str; 2]| {
        let names = names.map(str::to_owned).into();
        commands::add_nodes(&controller.config, names, Issue { lasts_secs: 3600, ..Issue::default() }).await
    };
    assert_eq!(add(["cli-00", ""]).await.err().unwrap().code(), ErrorCode::Usage);
    let [added, another] = <[_; 2]>::try_from(add(["cli-01", "cli-02"]).await.unwrap().nodes).ok().unwrap();
    assert_ne!((&added.node_id, &added.token), (&another.node_id, &another.token));
    assert_eq!(added.command, format!("sudo aio-worker install --token {}", added.token));
    assert!(added.install_script.unwrap().contains(&added.token));
    // The default owner's token, and NOTI told by the running relay although nobody rang.
    let token =
        commands::user_token(&controller.config, For::default(), vec!["organization.member".into()], 3600);
    let owner = controller.bearer(&token.await.unwrap());
    owner.await_events(&added.node_id, &["node.registered"]).await;
    assert_eq!(owner.node(&added.node_id).await["name"], "cli-01");
    let (_, nodes) = owner.get("/nodes").await;
    assert_eq!(nodes["statistics"]["total"], 2, "one refused name refuses them all: {nodes}");
    let node = controller.bearer(&added.token);
    assert_eq!(node.get(&format!("/nodes/{}/installation", added.node_id)).await.0, 200);
}

/// Runs the script against this server, with an installer that says what it was given; `prelude`
/// stands for the machine.
async fn run_script(controller: &Controller, pasted: bool, alter: bool) -> (bool, String, String) {
    let installer = "#!/bin/bash\necho \"arguments: $*\"\necho \"input: $(cat)\"\n";
    std::fs::write(controller.release("aio-installer-linux-amd64"), installer).unwrap();
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let (_, answer) = owner.post(&format!("/nodes/{id}/token"), json!({})).await;
    if alter {
        std::fs::write(controller.release("aio-installer-linux-amd64"), "#!/bin/bash\necho evil\n").unwrap();
    }
    // This machine may not run systemd, and need not be root: those two checks are answered, the
    // rest is the script as it is.
    let script = answer["installScript"]
        .as_str()
        .unwrap()
        .replace("[ ! -d /run/systemd/system ]", "false")
        .replace("[ \"$(id -u)\" -ne 0 ]", "false");
    assert!(script.matches("if false; then").count() == 2, "{script}");
    let output = tokio::task::spawn_blocking(move || {
        if pasted {
            // As a shell reads what is pasted: from its input, going on with what follows.
            let mut shell = Command::new("bash")
                .arg("-s")
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let input = format!("{script}\necho \"the shell lives, e is ${{-//[^e]/}}.\"\n");
            std::io::Write::write_all(&mut shell.stdin.take().unwrap(), input.as_bytes()).unwrap();
            shell.wait_with_output().unwrap()
        } else {
            Command::new("bash").arg("-c").arg(script).args(["install.sh", "--dry-run"]).output().unwrap()
        }
    })
    .await
    .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let stdout = text(output.stdout).replace(answer["token"].as_str().unwrap(), "TOKEN");
    (output.status.success(), stdout, text(output.stderr))
}

#[tokio::test]
async fn the_install_script_verifies_the_installer_and_hands_it_the_token_by_input() {
    let controller = Controller::start().await;
    let (success, stdout, stderr) = run_script(&controller, false, false).await;
    assert!(success, "{stderr}");
    assert!(stdout.ends_with("arguments: --token-file - --dry-run\ninput: TOKEN\n"), "{stdout}");
}

#[tokio::test]
async fn the_install_script_runs_no_installer_that_was_altered() {
    let controller = Controller::start().await;
    let (success, stdout, stderr) = run_script(&controller, false, true).await;
    assert!(!success && !stdout.contains("evil"), "{stdout}");
    assert!(stderr.contains("error[CHECKSUM_MISMATCH]") && stderr.contains("cure:"), "{stderr}");
}

#[tokio::test]
async fn a_shell_that_the_script_is_pasted_into_lives_on_unchanged() {
    for alter in [false, true] {
        let controller = Controller::start().await;
        let (success, stdout, stderr) = run_script(&controller, true, alter).await;
        assert!(success && stdout.ends_with("the shell lives, e is .\n"), "{stdout}{stderr}");
    }
}
