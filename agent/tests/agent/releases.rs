//! A tree of releases on a server that a test can break: it serves parts, and breaks off where it
//! is told to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aio_protocol::{
    release::{Checksum, Platform, index::ReleaseIndex},
    wire::{NodeUpdate, Urgency},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use uuid::Uuid;

pub(crate) const VERSION: &str = "v9.9.9";
pub(crate) const UPDATE: Uuid = Uuid::from_u128(7);

/// What a server does.
#[derive(Default)]
struct Served {
    files: BTreeMap<String, Vec<u8>>,
    /// Break off behind this many bytes, so many times.
    broken: (usize, usize),
    requests: Vec<(String, Option<String>)>,
}

/// The server.
#[derive(Clone)]
pub(crate) struct Releases {
    pub(crate) url: String,
    served: Arc<Mutex<Served>>,
}

pub(crate) fn sum(bytes: &[u8]) -> Checksum {
    Checksum::of_digest(Sha256::digest(bytes).into())
}

fn program() -> Vec<u8> {
    let head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0";
    [head.as_slice(), &b"program".repeat(30_000)].concat()
}

impl Releases {
    /// Serves a release whole and signed, as far as a daemon can see.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/releases", listener.local_addr().unwrap());
        let releases = Self { url, served: Arc::default() };
        let platform = Platform::of_architecture(std::env::consts::ARCH).unwrap();
        let program = program();
        let unit = b"[Unit]\nDescription=worker\n".to_vec();
        for (name, bytes) in [
            (platform.as_str(), program),
            (&format!("{platform}.minisig"), b"a signature".to_vec()),
            ("aio-worker.service", unit),
            ("aio-worker.sysusers.conf", b"u aio-worker\n".to_vec()),
            ("THIRD-PARTY-LICENSES", b"licences".to_vec()),
        ] {
            releases.put(&format!("{VERSION}/{name}"), bytes);
        }
        releases.put("index.json.minisig", b"a signature".to_vec());
        releases.publish();
        let serving = releases.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().answer(stream));
            }
        });
        releases
    }

    pub(crate) fn put(&self, path: &str, bytes: Vec<u8>) {
        self.served.lock().unwrap().files.insert(path.to_owned(), bytes);
    }

    pub(crate) fn take(&self, path: &str) {
        self.served.lock().unwrap().files.remove(path);
    }

    pub(crate) fn file(&self, path: &str) -> Vec<u8> {
        self.served.lock().unwrap().files[path].clone()
    }

    /// Breaks off behind so many bytes of a body, so many times.
    pub(crate) fn break_off(&self, behind: usize, times: usize) {
        self.served.lock().unwrap().broken = (behind, times);
    }

    /// What was asked, and from which byte on.
    pub(crate) fn requests(&self) -> Vec<(String, Option<String>)> {
        self.served.lock().unwrap().requests.clone()
    }

    /// Writes manifest and index of what is there.
    pub(crate) fn publish(&self) {
        let folder = format!("{VERSION}/");
        let files: BTreeMap<_, _> = self
            .served
            .lock()
            .unwrap()
            .files
            .iter()
            .filter_map(|(path, bytes)| {
                let name = path.strip_prefix(&folder).filter(|name| !name.ends_with(".minisig"))?;
                let entry = json!({ "size": bytes.len(), "sha256": sum(bytes).hex() });
                (name != "manifest.json").then(|| (name.to_owned(), entry))
            })
            .collect();
        let manifest = json!({
            "version": VERSION, "commit": "c", "committedAt": "2026-01-01T00:00:00Z", "rust": "1",
            "platforms": {}, "files": files,
        });
        self.put(&format!("{VERSION}/manifest.json"), manifest.to_string().into_bytes());
        self.index(|_| {});
    }

    /// Writes the index anew, changed.
    pub(crate) fn index(&self, change: impl FnOnce(&mut ReleaseIndex)) {
        let mut index: ReleaseIndex = serde_json::from_value(json!({
            "serial": 3, "issuedAt": "2026-01-01T00:00:00Z", "expiresAt": "2999-01-01T00:00:00Z",
            "releases": { VERSION: { "manifestSha256": self.manifest_sum() } },
        }))
        .unwrap();
        change(&mut index);
        self.put("index.json", serde_json::to_vec(&index).unwrap());
    }

    fn manifest_sum(&self) -> Checksum {
        sum(&self.file(&format!("{VERSION}/manifest.json")))
    }

    /// The offer of what is published.
    pub(crate) fn offer(&self) -> NodeUpdate {
        NodeUpdate {
            version: VERSION.parse().unwrap(),
            update_id: Some(UPDATE),
            manifest_sha256: Some(self.manifest_sum()),
            index_serial: Some(3),
            releases_url: Some(self.url.clone()),
            not_before: None,
            deadline: None,
            urgency: Urgency::Normal,
            defer_while_gpu_above: None,
        }
    }

    async fn answer(self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let (mut path, mut range) = (String::new(), None);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim();
            if path.is_empty() {
                line.split(' ').nth(1).unwrap().trim_start_matches("/releases/").clone_into(&mut path);
            } else if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: ") {
                range = Some(value.to_owned());
            } else if line.is_empty() {
                break;
            }
        }
        let (head, body) = self.respond(path, range);
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&body).await;
        let _ = stream.shutdown().await;
    }

    fn respond(&self, path: String, range: Option<String>) -> (String, Vec<u8>) {
        let mut served = self.served.lock().unwrap();
        served.requests.push((path.clone(), range.clone()));
        let Some(bytes) = served.files.get(&path).cloned() else {
            return (
                "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into(),
                vec![],
            );
        };
        let from: Option<usize> =
            range.map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
        let mut body = bytes[from.unwrap_or(0)..].to_vec();
        let status = match from {
            Some(from) => format!(
                "206 Partial Content\r\ncontent-range: bytes {from}-{}/{}",
                bytes.len() - 1,
                bytes.len()
            ),
            None => "200 OK".to_owned(),
        };
        let tag = sum(&bytes).hex()[..16].to_owned();
        let head = format!(
            "HTTP/1.1 {status}\r\netag: \"{tag}\"\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let (behind, times) = served.broken;
        if times > 0 && body.len() > behind {
            served.broken.1 -= 1;
            body.truncate(behind);
        }
        (head, body)
    }
}
