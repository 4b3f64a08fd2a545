//! A release on its way from who signs it to a node, with stock tools and the real programs: its
//! folder is taken over under a controller that runs, which offers it from then on, and the worker
//! verifies what it fetches.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use aio_protocol::{
    error_code::ErrorCode,
    release::{folder::SUMS, label},
};
use aio_tests::{
    artifacts::{Artifacts, VERSION, WORKER_FILE},
    controller::{Controller, ORGANISATION, Settings},
    release_folder::{self, COMMIT},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A key, a tree of one signed release, and the folder that a controller offers.
struct Publisher {
    folder: TempDir,
    artifacts: Artifacts,
}

impl Publisher {
    fn new() -> Result<Self> {
        let publisher = Self { folder: tempfile::tempdir()?, artifacts: Artifacts::release()? };
        fs::create_dir_all(publisher.offered())?;
        publisher.tool("minisign", &["-G", "-W", "-p", "release.pub", "-s", "release.key"])?;
        Ok(publisher)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn offered(&self) -> PathBuf {
        self.path("offered")
    }

    fn public_key(&self) -> Result<String> {
        let text = fs::read_to_string(self.path("release.pub"))?;
        Ok(text.lines().nth(1).context("a public key of one line")?.to_owned())
    }

    /// Writes the version's folder with `worker`, signed.
    fn release(&self, worker: &[u8]) -> Result<PathBuf> {
        release_folder::write(&self.artifacts, &self.path("tree"), worker, &[], |place, name| {
            let comment = label::comment(&VERSION.parse()?, name);
            let file = place.join(name).display().to_string();
            self.tool("minisign", &["-S", "-s", "release.key", "-t", &comment, "-m", &file])
        })
    }

    fn tool(&self, program: &str, words: &[&str]) -> Result<()> {
        let output = Command::new(program).args(words).current_dir(self.folder.path()).output();
        let output =
            output.with_context(|| format!("cannot run {program}; `cargo xtask test` installs it"))?;
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// The commands below this heading of docs/releases.md that begin with these words, as they stand there.
fn documented(begin: &str) -> Result<&'static str> {
    let page = include_str!("../../../docs/releases.md");
    let mut blocks = page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap_or(block));
    blocks.find(|block| block.starts_with(begin)).with_context(|| format!("no commands begin with {begin}"))
}

/// `controller-stub releases …` on the data folder of the controller that runs.
fn releases(publisher: &Publisher, controller: &Controller, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(publisher.artifacts.controller()?);
    command.arg("releases").args(words).arg("--data-dir").arg(controller.data_dir()).env_clear();
    Ok(command.output()?)
}

fn refusal(output: &Output, code: ErrorCode) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code.exit_status().into()), "{said}");
    ensure!(said.starts_with(&format!("error[{code}]: ")) && said.contains(code.cure()), "{said}");
    Ok(())
}

#[test]
fn a_release_that_is_added_under_a_running_controller_is_offered_and_passes_on_a_node() -> Result<()> {
    let publisher = Publisher::new()?;
    let settings = Settings::default()
        .releases(&publisher.offered())
        .env("RELEASE_PUBLIC_KEY", &publisher.public_key()?);
    let controller = Controller::start(&publisher.artifacts, &settings)?;
    let node = controller.register("gpu-box-01")?.id;

    let worker = fs::read(publisher.artifacts.worker()?)?;
    let place = publisher.release(&worker)?;
    let tree = place.parent().context("a tree")?.display().to_string();
    // One that was altered on the way is not taken, and what is offered stays as it was.
    fs::write(place.join(WORKER_FILE), [&*worker, b"more"].concat())?;
    refusal(&releases(&publisher, &controller, &["add", &tree])?, ErrorCode::ChecksumMismatch)?;
    ensure!(fs::read_dir(publisher.offered())?.count() == 0, "something was left behind");
    fs::write(place.join(WORKER_FILE), &worker)?;
    for outcome in ["added", "alreadyThere"] {
        let output = releases(&publisher, &controller, &["add", &tree, "--output", "json"])?;
        let told: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        assert_eq!(told, json!({ "version": VERSION, "platforms": [WORKER_FILE], "outcome": outcome }));
    }
    let listed = releases(&publisher, &controller, &["list"])?;
    let line = String::from_utf8(listed.stdout)?;
    assert_eq!(line, format!("{VERSION}  {WORKER_FILE}  signed  commit {COMMIT}  default\n"));

    // The token pins what was published when it was made, and carries the key.
    let token = controller.token(&node, &json!({}))?.token;
    let bundle = publisher.path("bundle.tar");
    let made = Command::new(publisher.artifacts.worker()?)
        .args(["bundle", "--output", "json", "--file"])
        .arg(&bundle)
        .env_clear()
        .env("AIO_NODE_TOKEN", &token)
        .output()?;
    let told: Value = serde_json::from_slice(&made.stdout)
        .with_context(|| String::from_utf8_lossy(&made.stderr).into_owned())?;
    assert_eq!((&told["version"], &told["signed"]), (&VERSION.into(), &true.into()), "{told}");

    // The same version with other bytes, signed as it may be.
    publisher.release(&[&*worker, b"more"].concat())?;
    refusal(&releases(&publisher, &controller, &["add", &tree])?, ErrorCode::ReleaseExists)?;
    assert_eq!(fs::read(publisher.offered().join(VERSION).join(WORKER_FILE))?, worker);
    controller.stop()
}

#[test]
fn releases_are_added_before_the_first_start_of_a_server_where_their_folder_is_named() -> Result<()> {
    let publisher = Publisher::new()?;
    let place = publisher.release(&fs::read(publisher.artifacts.worker()?)?)?;
    let controller = publisher.artifacts.controller()?;
    let releases = |words: &[&str]| -> Result<Output> {
        let mut command = Command::new(&controller);
        command.arg("releases").args(words).arg("--data-dir").arg(publisher.path("data"));
        command.env_clear().env("RELEASE_PUBLIC_KEY", publisher.public_key()?);
        Ok(command.output()?)
    };
    let (from, into) = (place.display().to_string(), publisher.offered().display().to_string());
    refusal(&releases(&["add", &from])?, ErrorCode::ConfigInvalid)?;
    let added = releases(&["add", &from, "--releases", &into])?;
    assert_eq!(String::from_utf8(added.stdout)?, format!("{VERSION}  {WORKER_FILE}  added\n"));
    let listed = String::from_utf8(releases(&["list", "--releases", &into])?.stdout)?;
    ensure!(listed.starts_with(&format!("{VERSION}  {WORKER_FILE}  signed  ")), "{listed}");
    ensure!(!publisher.path("data").exists(), "a data folder was made");
    Ok(())
}

#[test]
fn a_release_of_another_key_or_none_is_not_added_where_a_key_is_configured() -> Result<()> {
    let (publisher, stranger) = (Publisher::new()?, Publisher::new()?);
    let settings = Settings::default()
        .releases(&publisher.offered())
        .env("RELEASE_PUBLIC_KEY", &publisher.public_key()?);
    let controller = Controller::start(&publisher.artifacts, &settings)?;
    let place = stranger.release(&fs::read(stranger.artifacts.worker()?)?)?;
    let folder = place.display().to_string();
    refusal(&releases(&publisher, &controller, &["add", &folder])?, ErrorCode::SignatureForeign)?;
    fs::remove_file(place.join(format!("{SUMS}.minisig")))?;
    refusal(&releases(&publisher, &controller, &["add", &folder])?, ErrorCode::SignatureMissing)?;
    fs::remove_file(place.join(SUMS))?;
    refusal(&releases(&publisher, &controller, &["add", &folder])?, ErrorCode::ReleaseInvalid)?;
    assert_eq!(fs::read_dir(publisher.offered())?.count(), 0);
    controller.stop()
}

#[test]
fn a_release_is_verified_by_hand_and_signed_again_as_the_page_says() -> Result<()> {
    let publisher = Publisher::new()?;
    let settings = Settings::default()
        .releases(&publisher.offered())
        .env("RELEASE_PUBLIC_KEY", &publisher.public_key()?);
    let controller = Controller::start(&publisher.artifacts, &settings)?;
    let place = publisher.release(&fs::read(publisher.artifacts.worker()?)?)?;
    let added = releases(&publisher, &controller, &["add", &place.display().to_string()])?;
    ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    fs::rename(publisher.path("tree"), publisher.path("releases"))?;
    let follow = |folder: &str, commands: &str, key: &str| -> Result<String> {
        let commands = commands
            .replace("RWQ…", key)
            .replace("v1.0.0", VERSION)
            .replace("/var/lib/controller-stub", &controller.data_dir().display().to_string());
        let mut path = publisher.artifacts.folder().as_os_str().to_owned();
        path.push(":/usr/bin:/bin");
        let mut shell = Command::new("sh");
        shell.args(["-euc", &commands]).current_dir(publisher.path(folder)).env_clear();
        let output = shell.env("PATH", path).env("RELEASE_PUBLIC_KEY", key).output()?;
        ensure!(output.status.success(), "{commands}{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let folder = format!("releases/{VERSION}");
    let said = follow(&folder, documented("minisign -V")?, &publisher.public_key()?)?;
    for name in [SUMS, WORKER_FILE] {
        ensure!(said.contains(&format!("Trusted comment: file:{name} version:{VERSION}")), "{said}");
    }
    publisher.tool("minisign", &["-G", "-W", "-f", "-p", "release.pub", "-s", "new.key"])?;
    let said = follow(".", documented("cd releases/")?, &publisher.public_key()?)?;
    ensure!(said.ends_with(&format!("{VERSION}  {WORKER_FILE}  signed again\n")), "{said}");
    follow(&folder, documented("minisign -V")?, &publisher.public_key()?)?;
    controller.stop()
}

#[test]
fn what_is_fetched_is_rolled_out_where_that_is_asked_for_and_never_twice() -> Result<()> {
    let publisher = Publisher::new()?;
    let signer = aio_tests::publisher::Publisher::new()?;
    let tree = publisher.path("published");
    fs::create_dir(&tree)?;
    signer.publish(&publisher.artifacts, &tree, VERSION, |_| Ok(()))?;
    signer.index(&tree, |_| {})?;
    let offering =
        |folder: &Path| Settings::default().releases(folder).env("RELEASE_PUBLIC_KEY", &signer.key());
    // One controller fetches from another.
    let source = Controller::start(&publisher.artifacts, &offering(&tree))?;
    let controller = Controller::start(&publisher.artifacts, &offering(&publisher.offered()))?;
    let from = format!("{}/releases", source.url());
    let rollouts = |more: &[&str]| -> Result<Value> {
        let fetch = [&["fetch", "--from", &from, "--output", "json", "--org", ORGANISATION], more].concat();
        let fetched = releases(&publisher, &controller, &fetch)?;
        ensure!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
        Ok(controller.ask("/rollouts")?["data"].take())
    };

    assert_eq!(rollouts(&[])?, json!([]), "nothing is rolled out unasked");
    let started = rollouts(&["--rollout", "gpu"])?;
    let one = started.get(0).context("no rollout")?;
    assert_eq!((&one["version"], &one["group"]), (&json!(VERSION), &json!("gpu")), "{started}");
    ensure!(one["state"] != json!("draft"), "{started}");
    controller.order(&format!("/rollouts/{}/abort", one["id"].as_str().unwrap_or_default()), &json!({}))?;
    for group in ["gpu", "cpu"] {
        let known = rollouts(&["--rollout", group])?;
        let groups: Vec<_> = known.as_array().into_iter().flatten().map(|it| it["group"].as_str()).collect();
        let expected: &[_] = if group == "gpu" { &[Some("gpu")] } else { &[Some("cpu"), Some("gpu")] };
        assert_eq!(groups, expected, "who ended a rollout does not want it again");
    }
    source.stop()?;
    controller.stop()
}
