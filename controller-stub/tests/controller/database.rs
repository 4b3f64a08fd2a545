//! Bad days of the database: held by another process, damaged, served by another controller, or on
//! a full disk. Each is told by a code of its own, and the next write works as soon as its cause is
//! gone.

use std::{fs, path::Path, process::Command, time::Instant};

use controller_stub::commands::{self, AuditFilter, AuditFormat, For, Listed};
use serde_json::json;

use crate::{
    harness::{self, Controller, answer, eventually, refusal},
    peers::Worker,
    program::{self, run},
};

#[tokio::test]
async fn a_database_that_another_process_holds_is_503_with_a_time_to_come_back() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let url = format!("sqlite://{}/controller.db", controller.config.data_dir.display());
    let other = sqlx::AnyPool::connect(&url).await.unwrap();
    let held = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let began = Instant::now();
    let request = owner.request(reqwest::Method::POST, "/nodes").json(&json!({"name": "gpu"}));
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "3");
    assert_eq!(response.status(), 503);
    assert_eq!(response.json::<serde_json::Value>().await.unwrap()["code"], "DATABASE_BUSY");
    assert!(began.elapsed().as_secs() < 8, "{:?}", began.elapsed());
    // Who only reads is not kept waiting, on the command line neither.
    assert_eq!(owner.get("/nodes").await.0, 200);
    let began = Instant::now();
    commands::list_nodes(&controller.config, For::default(), Listed::default()).await.unwrap();
    let (filter, mut trail) = (AuditFilter::default(), Vec::new());
    commands::audit(&controller.config, For::default(), filter, AuditFormat::Csv, &mut trail).await.unwrap();
    assert!(began.elapsed().as_secs() < 2, "{:?}", began.elapsed());
    held.rollback().await.unwrap();
    owner.add_node("gpu").await;
}

fn refused(flags: &[&str], data: &Path, code: &str) {
    let began = Instant::now();
    for arguments in [&["serve", "--check"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        let output = run(&[arguments, flags].concat(), data);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(&format!("error[{code}]: ")), "{arguments:?}: {told}");
        assert!(!output.status.success());
    }
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_told_at_once_by_check_and_by_start() {
    let data = tempfile::tempdir().unwrap();
    assert!(run(&["serve", "--check"], data.path()).status.success());
    fs::write(data.path().join("controller.db"), "a text and no database\n".repeat(100)).unwrap();
    refused(&[], data.path(), "DATABASE_DAMAGED");
}

#[tokio::test]
async fn two_controllers_with_two_data_folders_do_not_serve_one_database() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let _served = program::serve_with(&[], first.path());
    let config = second.path().join("config.toml");
    let url = format!("sqlite:{}/controller.db", first.path().display());
    fs::write(&config, format!("database_url = \"{url}\"\n")).unwrap();
    let flags = ["serve", "--listen", "127.0.0.1:0", "--config", config.to_str().unwrap()];
    let output = run(&flags, &second.path().join("data"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("error[DATABASE_IN_USE]: "), "{told}");
    assert_eq!(output.status.code(), Some(78));
}

/// A file system of 24 MiB of its own, in which a folder can be filled.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where the tests may not mount one.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
            .arg(folder.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }

    fn fill(&self) {
        // Ends with an error, which is what is wanted.
        let _ = fs::write(self.0.path().join("ballast"), vec![1; 64 << 20]);
    }

    fn free(&self) {
        fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn on_a_full_disk_revocations_still_commit_and_everything_works_again_once_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        assert!(!rustix::process::geteuid().is_root(), "root can mount");
        eprintln!("not run: only root can mount a small file system");
        return;
    };
    let data = disk.0.path().join("data");
    let mut controller = Controller::start_with(|config| config.data_dir = data.clone()).await;
    let owner = controller.owner_of("acme").await;
    let (kept, gone) = (owner.add_node("kept").await, owner.add_node("gone").await);
    let token = owner.token_of(&gone).await;
    let mut worker = Worker::welcomed(&controller.gateway(), &gone, &token).await;
    disk.fill();
    // What is left in files that are there already may take some changes yet.
    eventually("the disk is full", async || {
        let refused = owner.post("/nodes", json!({"name": uuid::Uuid::new_v4().to_string()})).await;
        if refused.1["code"] == "DISK_FULL" { Ok(()) } else { Err(refused.1.to_string()) }
    })
    .await;
    let (status, node) = answer(owner.request(reqwest::Method::DELETE, &format!("/nodes/{gone}"))).await;
    assert_eq!((status.as_u16(), &node["status"]), (200, &json!("inactive")), "{node}");
    assert_eq!(worker.closed().await, 4401);
    let (status, answer) = owner.post(&format!("/nodes/{kept}/regenerate-credentials"), json!({})).await;
    assert_eq!(status, 201, "{answer}");
    // The room that was freed for them is for nobody else.
    refusal(owner.post("/nodes", json!({"name": "other"})).await, 503, "DISK_FULL");
    disk.free();
    eventually("changes are taken again", async || {
        let (status, answer) = owner.post("/nodes", json!({"name": "other"})).await;
        if status == 201 { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
    let ready = harness::http().get(format!("{}/readyz", controller.url())).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    assert!(data.join("controller.db.reserve").is_file(), "and the room is kept again");
    controller.stop().await;
}
