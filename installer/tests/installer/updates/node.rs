//! A node that updates itself and the releases that its daemon brings.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    time::Duration,
};

use aio_host::layout::{UNIT, UPDATE_SOCKET_UNIT};
use aio_installer::{Checkpoint, Uneventful, update};
use aio_protocol::{
    release::{
        Checksum, Platform, ReleaseVersion,
        folder::{FileEntry, FolderManifest, Needs},
        index::{IndexedRelease, ReleaseIndex},
        label,
    },
    time::Timestamp,
    update::{RootAnswer, RootPhase, RootRequest, RootStatus, Verdict},
};
use minisign::KeyPair;
use serde_json::json;
use uuid::Uuid;

use crate::{
    server::{program, sha256},
    world::{Listing, World},
};

pub(super) const ID: Uuid = Uuid::from_u128(0x0193_b5b5_22bb_7d2e_8c40_9f7e_6d5c_4b3a);
pub(super) const TIMINGS: update::Timings = update::Timings {
    ready: Duration::from_secs(5),
    online: Duration::from_millis(300),
    probation: Duration::ZERO,
    look: Duration::from_millis(20),
    idle: Duration::from_millis(100),
};

/// A node whose controller may update it, at v1.0.0.
pub(super) struct Node {
    pub(super) world: World,
    pub(super) keys: KeyPair,
    pub(super) timings: update::Timings,
}

fn sign(keys: &KeyPair, bytes: &[u8], comment: &str) -> String {
    minisign::sign(Some(&keys.pk), &keys.sk, bytes, Some(comment), None).unwrap().into_string()
}

fn sum(bytes: &[u8]) -> Checksum {
    sha256(bytes).parse().unwrap()
}

pub(super) fn version(text: &str) -> ReleaseVersion {
    text.parse().unwrap()
}

/// A world whose installation switches updates on.
pub(super) fn asking(world: &mut World, keys: &KeyPair) {
    let signature = world.change(|server| sign(keys, &server.file, "file:linux-amd64 version:v1.0.0"));
    world.change(|server| server.signature = Some(signature));
    world.use_token("first", &json!({ "rel": keys.pk.to_base64() }));
    world.request.settings.auto_update = true;
    fs::create_dir_all(world.dir.path().join("run/systemd/system")).unwrap();
}

impl Node {
    pub(super) async fn new() -> Self {
        let mut world = World::new().await;
        let keys = KeyPair::generate_unencrypted_keypair().unwrap();
        asking(&mut world, &keys);
        world.install().await.unwrap();
        // systemd makes it when the service starts.
        fs::create_dir_all(world.host.layout.update_status().parent().unwrap()).unwrap();
        fs::create_dir_all(world.host.layout.update_runtime_dir()).unwrap();
        Self { world, keys, timings: TIMINGS }
    }

    pub(super) fn inbox(&self) -> PathBuf {
        self.world.host.layout.update_inbox().join(ID.to_string())
    }

    /// What the daemon brings, and the request to look at it.
    pub(super) fn bring(&self, release: &Release) -> RootRequest {
        let Release { version, program, units, index, .. } = release;
        let mut files = BTreeMap::from([("linux-amd64".to_owned(), program.clone())]);
        files.extend(units.iter().map(|(name, text)| ((*name).to_owned(), text.clone().into_bytes())));
        let entry = |bytes: &Vec<u8>| FileEntry { size: bytes.len() as u64, sha256: sum(bytes) };
        let manifest = FolderManifest {
            version: version.clone(),
            commit: "c".to_owned(),
            committed_at: Timestamp::from_millis(0),
            rust: "1.95.0".to_owned(),
            release_key: None,
            platforms: BTreeMap::from([(Platform::LinuxAmd64, Needs { glibc: "2.31".to_owned() })]),
            files: files.iter().map(|(name, bytes)| (name.clone(), entry(bytes))).collect(),
        };
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let named = IndexedRelease { manifest_sha256: sum(&manifest), oldest_from: None, protocol: 1 };
        let index = ReleaseIndex { releases: BTreeMap::from([(version.clone(), named)]), ..index.clone() };
        let (comment, index) = (index.comment(), serde_json::to_vec(&index).unwrap());
        let inbox = self.inbox();
        let _ = fs::remove_dir_all(&inbox);
        fs::create_dir_all(&inbox).unwrap();
        let signature = sign(&self.keys, program, &label::comment(version, "linux-amd64"));
        for (name, bytes) in files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).chain([
            ("linux-amd64.minisig", signature.as_bytes()),
            ("manifest.json", &manifest),
            ("index.json.minisig", sign(&self.keys, &index, &comment).as_bytes()),
            ("index.json", &index),
        ]) {
            fs::write(inbox.join(name), bytes).unwrap();
        }
        RootRequest::Stage {
            update_id: ID,
            version: version.clone(),
            manifest_sha256: sum(&manifest),
            index_serial: release.index.serial,
        }
    }

    /// Asks root, in the order in which it serves, and says what it answers to each.
    pub(super) async fn ask(&self, requests: &[RootRequest]) -> Vec<RootAnswer> {
        self.ask_with(requests, &Uneventful).await
    }

    pub(super) async fn ask_with(
        &self,
        requests: &[RootRequest],
        checkpoint: &dyn Checkpoint,
    ) -> Vec<RootAnswer> {
        let lines: Vec<_> = requests.iter().map(|request| serde_json::to_string(request).unwrap()).collect();
        let answers = self.say(&lines, checkpoint).await;
        answers.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(super) async fn say(&self, lines: &[String], checkpoint: &dyn Checkpoint) -> Vec<String> {
        let path = self.world.host.layout.update_socket();
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let lines = lines.to_vec();
        let asking = tokio::task::spawn_blocking(move || {
            let ask = |line: &String| {
                let mut stream = UnixStream::connect(&path).unwrap();
                let _ = writeln!(stream, "{line}");
                let mut answer = String::new();
                BufReader::new(stream).read_line(&mut answer).unwrap();
                answer
            };
            lines.iter().map(ask).collect::<Vec<_>>()
        });
        let serving = update::serve_with(&self.world.host, listener, self.timings, checkpoint);
        let (answers, served) = tokio::join!(asking, serving);
        served.unwrap();
        answers.unwrap()
    }

    pub(super) fn status(&self) -> RootStatus {
        update::status(&self.world.host.layout).unwrap()
    }

    pub(super) fn verdict(&self) -> (Verdict, Option<String>) {
        let status = self.status();
        assert_eq!((status.phase, status.update_id), (RootPhase::Idle, None), "{status:?}");
        let last = status.last.unwrap();
        assert_eq!(last.update_id, ID);
        (last.verdict, last.code)
    }

    pub(super) fn runs(&self) -> String {
        fs::read_link(self.world.host.layout.current()).unwrap().display().to_string()
    }

    /// The machine, without what root remembers of updates and what the daemon has brought.
    pub(super) fn listing(&self) -> Listing {
        let mut listing = self.world.listing();
        let ours = ["var/lib/aio-worker-update", "var/lib/aio-worker/update", "var/lib/aio-installer"];
        listing.files.retain(|path, _| !ours.iter().any(|ours| path.starts_with(ours)));
        listing
    }
}

/// A release as its owner publishes it.
pub(super) struct Release {
    pub(super) version: ReleaseVersion,
    pub(super) program: Vec<u8>,
    pub(super) units: Vec<(&'static str, String)>,
    pub(super) index: ReleaseIndex,
}

pub(super) fn release(name: &str) -> Release {
    let now = Timestamp::from(std::time::SystemTime::now());
    let index = ReleaseIndex {
        serial: 7,
        issued_at: now,
        expires_at: now.plus(Duration::from_secs(3600)),
        floor: None,
        revoked: [].into(),
        keys: vec![],
        releases: BTreeMap::new(),
    };
    let unit = format!("# of {name}\n[Service]\n[Install]\nWantedBy=multi-user.target\n");
    let socket = format!("# of {name}\n[Socket]\n[Install]\nWantedBy=sockets.target\n");
    Release {
        version: version(name),
        program: program(format!("the release {name}").as_bytes()),
        units: vec![(UNIT, unit), (UPDATE_SOCKET_UNIT, socket), ("aio-worker-later.service", "later".into())],
        index,
    }
}
