//! A whole bundle of machines that exist in a folder only: what is in it, what is not, and that no secret is.

use std::{collections::BTreeMap, fs, io::Read, os::unix::fs::PermissionsExt, path::Path};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use flate2::read::GzDecoder;
use tempfile::TempDir;

use super::*;

const SIGNATURE: &str = "an-installed-signature-of-atoken";
const OPAQUE: &str = "no-jwt-but-a-secret-all-the-same";

fn token(signature: &str) -> String {
    let claims = r#"{"sub":"69396100cd71623c7bbfbfee","type":"node","jti":"its-id","iat":1,"exp":1765454400,
        "ctl":"wss://me:pass@aiwm.invalid/ws/node","api":"not a URL"}"#;
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{signature}", encode("{\"alg\":\"HS256\"}"), encode(claims))
}

/// A machine with these files.
fn machine(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

/// The bundle's files, unpacked, and its manifest.
async fn bundle(root: &Path, token: Option<&str>) -> (BTreeMap<String, String>, Manifest) {
    let layout = Layout::under(root);
    let subject = Subject {
        runtime_dir: layout.runtime_dir(),
        layout,
        token: token.map(str::to_owned),
        nvml_library: Some("/nonexistent/libnvidia-ml.so.1".into()),
        root: false,
    };
    let (parts, redactor) = gather::gather(&subject).await;
    let mut manifest = Manifest {
        created_at: "now".into(),
        worker: build::number(),
        platform: "linux-amd64",
        host: "gpu-1".into(),
        root: false,
        gathered: Vec::new(),
        missing: Vec::new(),
    };
    let archive = archive::pack("top", &mut manifest, parts, &redactor).unwrap();
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(GzDecoder::new(&archive[..])).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().strip_prefix("top").unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(name, text);
    }
    (files, manifest)
}

#[tokio::test]
async fn an_installed_machine_s_bundle_tells_all_but_its_secrets() {
    let (installed, kept, candidate, given) = (
        token(SIGNATURE),
        token("of-the-kept-tokens-0"),
        token("of-the-candidate"),
        token("of-the-variables"),
    );
    let unit = format!("[Service]\nEnvironment=\"AIO_NODE_TOKEN={OPAQUE}\"\nExecStart=aio-worker start\n");
    let told = format!("{{\"told\":\"{OPAQUE} and {SIGNATURE} and {installed}\"}}\n");
    let root = machine(&[
        ("etc/os-release", "PRETTY_NAME=\"Ubuntu 22.04\"\n"),
        ("etc/aio-worker/token", &installed),
        (
            "etc/aio-worker/config.toml",
            "ca_file = \"/x\"\ncontroller_endpoint = \"wss://me:pass@aiwm.invalid\"\n",
        ),
        ("var/lib/aio-worker/token", &format!("{kept}\n0198c5a2-0000-7000-8000-000000000000\n")),
        ("var/lib/aio-worker/token.candidate", &candidate),
        ("etc/systemd/system/aio-worker.service", &unit),
        ("etc/systemd/system/aio-worker.service.d/10.conf", &format!("[Service]\n# {given}\n")),
        ("var/lib/aio-installer/journal.jsonl", &told),
        ("var/lib/aio-installer/undelivered/1.json", &told),
        ("var/lib/aio-worker/undelivered/2.json", "{}"),
        ("usr/local/lib/aio-worker/v1.0.0/aio-worker", ""),
    ]);

    let (files, manifest) = bundle(root.path(), Some(&given)).await;

    for (name, text) in &files {
        for secret in
            [SIGNATURE, OPAQUE, "of-the-kept-tokens-0", "of-the-candidate", "of-the-variables", "me:pass"]
        {
            assert!(!text.contains(secret), "{secret} is in {name}: {text}");
        }
        assert!(!text.contains("eyJ"), "a token is in {name}: {text}");
    }
    let redacted = "{\"told\":\"[redacted] and [redacted] and [redacted]\"}\n";
    assert_eq!(files["install-journal.jsonl"], redacted);
    assert_eq!(files["undelivered/1.json"], redacted);
    assert_eq!(files["undelivered/2.json"], "{}");
    assert_eq!(
        files["config.toml"],
        "ca_file = \"/x\"\ncontroller_endpoint = \"wss://[redacted]@aiwm.invalid\"\n"
    );
    assert!(files["unit.txt"].contains("AIO_NODE_TOKEN=[redacted]"), "{}", files["unit.txt"]);
    assert!(files["unit.txt"].contains("aio-worker.service.d/10.conf\n[Service]"), "{}", files["unit.txt"]);
    assert_eq!(files["tokens.json"].matches("\"id\": \"its-id\"").count(), 4, "{}", files["tokens.json"]);
    for words in ["Ubuntu 22.04", "v1.0.0"] {
        assert!(files["versions.json"].contains(words), "{}", files["versions.json"]);
    }
    assert!(files["doctor.json"].contains("\"gpu_driver\""), "{}", files["doctor.json"]);
    assert!(files["inventory.json"].contains("\"systemInfo\""), "{}", files["inventory.json"]);
    let listed: Vec<_> = manifest.gathered.iter().map(|part| part.file.as_str()).collect();
    assert_eq!(listed.len() + 1, files.len(), "{listed:?}");
    assert!(files["manifest.json"].contains("no worker answers in"), "{}", files["manifest.json"]);
}

#[tokio::test]
async fn a_machine_on_which_nothing_is_installed_has_a_bundle_that_says_so() {
    let root = machine(&[]);
    let (files, manifest) = bundle(root.path(), None).await;
    let reason = |name: &str| {
        let missing = manifest.missing.iter().find(|part| part.file == name);
        missing.unwrap_or_else(|| panic!("{name} is not missing: {files:?}")).reason.as_str()
    };
    assert_eq!(reason("unit.txt"), "there is no aio-worker.service");
    assert_eq!(reason("tokens.json"), "there is no token");
    assert!(reason("config.toml").ends_with("No such file or directory (os error 2)"));
    assert!(files.contains_key("doctor.json") && files.contains_key("versions.json"), "{files:?}");
    let screen = screen(Path::new("x.tar.gz"), 1025, &manifest);
    assert!(screen.starts_with("x.tar.gz (2 KiB) holds\n  manifest.json          this list\n"), "{screen}");
    assert!(screen.contains("and not\n") && screen.contains("Run it with sudo"), "{screen}");
}

#[tokio::test]
async fn a_link_in_the_daemon_s_folder_leads_root_nowhere() {
    let root = machine(&[("etc/shadow", OPAQUE), ("etc/x.json", OPAQUE), ("var/lib/aio-worker/x", "")]);
    std::os::unix::fs::symlink(root.path().join("etc/shadow"), root.path().join("var/lib/aio-worker/token"))
        .unwrap();
    std::os::unix::fs::symlink(root.path().join("etc"), root.path().join("var/lib/aio-worker/undelivered"))
        .unwrap();
    let (files, manifest) = bundle(root.path(), None).await;
    assert!(!files.contains_key("undelivered/x.json"), "{files:?}");
    assert!(manifest.missing.iter().any(|part| part.file == "undelivered/"), "{manifest:?}");
    assert!(files["tokens.json"].contains("\"unreadable\""), "{}", files["tokens.json"]);
}

#[test]
fn an_archive_is_its_owner_s_alone_and_takes_nobody_s_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tar.gz");
    archive::save(&path, b"first").unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    archive::save(&path, b"second").unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), b"first");
}

#[test]
fn the_archive_is_named_after_host_and_time() {
    let now = "2026-11-26T00:47:08.5Z".parse().unwrap();
    assert_eq!(folder_name("gpu-1.lan", now), "aio-worker-support-gpu-1.lan-20261126T004708Z");
    assert_eq!(folder_name("../a b", now), "aio-worker-support--a-b-20261126T004708Z");
    assert_eq!(folder_name("", now), "aio-worker-support-unnamed-20261126T004708Z");
}
