//! How a release comes to the machine, and what of it does not.

use std::{fs, path::Path};

use aio_host::tls::Trust;
use aio_protocol::{failure::Failure, release::index::IndexedRelease, time::Timestamp, wire::NodeUpdate};
use aio_worker::update::{
    download::{Cancelled, Route, run},
    offer::Offer,
};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use super::releases::{Releases, UPDATE, VERSION};

const PLATFORM: &str = if cfg!(target_arch = "aarch64") { "linux-arm64" } else { "linux-amd64" };

async fn bring_offered(offer: NodeUpdate, inbox: &Path) -> Result<u64, Failure> {
    aio_host::tls::install_provider();
    let offer = Offer::of(offer, Timestamp::from_millis(0)).unwrap();
    let inbox = inbox.to_owned();
    let route = Route { trust: Trust::default(), proxy: None, insecure_http: false };
    spawn_blocking(move || run(&offer, Box::new(move || Ok(route)), &inbox, &Cancelled::new())).await.unwrap()
}

async fn bring(releases: &Releases, inbox: &TempDir) -> Result<u64, Failure> {
    bring_offered(releases.offer(), inbox.path()).await
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_release_comes_flat_into_its_folder_and_what_was_left_of_others_goes() {
    let (releases, inbox) = (Releases::start().await, tempfile::tempdir().unwrap());
    let left = inbox.path().join("0f0e0d0c-0000-0000-0000-000000000000");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("linux-amd64"), "old").unwrap();
    fs::write(inbox.path().join("memory.json"), "{}").unwrap();
    assert_eq!(bring(&releases, &inbox).await, Ok(3));
    assert_eq!(names(inbox.path()), [UPDATE.to_string(), "memory.json".to_owned()]);
    let folder = inbox.path().join(UPDATE.to_string());
    let signature = format!("{PLATFORM}.minisig");
    assert_eq!(
        names(&folder),
        [
            "aio-worker.service",
            "aio-worker.sysusers.conf",
            "index.json",
            "index.json.minisig",
            PLATFORM,
            &signature,
            "manifest.json",
        ]
    );
    for name in names(&folder).iter().filter(|name| !name.starts_with("index")) {
        let served = releases.file(&format!("{VERSION}/{name}"));
        assert!(fs::read(folder.join(name)).unwrap() == served, "{name}");
    }
}

#[tokio::test]
async fn a_transfer_that_breaks_is_taken_up_where_it_was_and_one_that_is_whole_is_not_repeated() {
    let (releases, inbox) = (Releases::start().await, tempfile::tempdir().unwrap());
    releases.break_off(60_000, 2);
    bring(&releases, &inbox).await.unwrap();
    let program = format!("{VERSION}/{PLATFORM}");
    let ranges = || {
        let requests = releases.requests().into_iter().filter(|(path, _)| *path == program);
        requests.map(|(_, range)| range).collect::<Vec<_>>()
    };
    assert_eq!(ranges(), [None, Some("bytes=60000-".into()), Some("bytes=120000-".into())]);
    bring(&releases, &inbox).await.unwrap();
    assert_eq!(ranges().len(), 3, "it was there");
}

#[tokio::test]
async fn what_is_not_what_was_offered_is_refused_with_its_code() {
    type Change = fn(&Releases);
    let cases: [(&str, Change); 11] = [
        ("INDEX_INVALID", |it| it.put("index.json", b"{".to_vec())),
        ("INDEX_INVALID", |it| it.index(|index| index.releases.clear())),
        ("INDEX_INVALID", |it| {
            it.index(|index| {
                let other = super::releases::sum(b"another");
                let release = IndexedRelease { manifest_sha256: other, oldest_from: None, protocol: 1 };
                index.releases.insert(VERSION.parse().unwrap(), release);
            });
        }),
        ("INDEX_REPLAYED", |it| it.index(|index| index.serial = 2)),
        ("INDEX_EXPIRED", |it| it.index(|index| index.expires_at = index.issued_at)),
        ("UPDATE_BELOW_FLOOR", |it| it.index(|index| index.floor = Some("v9.9.10".parse().unwrap()))),
        ("UPDATE_UNREACHABLE", |it| {
            it.index(|index| {
                for release in index.releases.values_mut() {
                    release.oldest_from = Some("v9.0.0".parse().unwrap());
                }
            });
        }),
        ("RELEASE_NOT_FOUND", |it| it.take("index.json.minisig")),
        ("SIZE_MISMATCH", |it| it.put("index.json", vec![b' '; 300 * 1024])),
        ("SIZE_MISMATCH", |it| it.put(&format!("{VERSION}/aio-worker.service"), vec![b' '; 4096])),
        ("CHECKSUM_MISMATCH", |it| {
            let mut bytes = it.file(&format!("{VERSION}/{PLATFORM}"));
            *bytes.last_mut().unwrap() ^= 1;
            it.put(&format!("{VERSION}/{PLATFORM}"), bytes);
        }),
    ];
    for (code, change) in cases {
        let (releases, inbox) = (Releases::start().await, tempfile::tempdir().unwrap());
        change(&releases);
        let failure = bring(&releases, &inbox).await.unwrap_err();
        assert_eq!(failure.code.as_str(), code, "{failure:?}");
    }
}

#[tokio::test]
async fn a_manifest_that_was_not_offered_brings_nothing_after_it() {
    let (releases, inbox) = (Releases::start().await, tempfile::tempdir().unwrap());
    let offer = releases.offer();
    releases.put(&format!("{VERSION}/manifest.json"), b"{}".to_vec());
    let failure = bring_offered(offer, inbox.path()).await.unwrap_err();
    assert_eq!(failure.code.as_str(), "CHECKSUM_MISMATCH", "{failure:?}");
    assert!(!releases.requests().iter().any(|(path, _)| path.ends_with(PLATFORM)));
}

#[tokio::test]
async fn releases_come_in_the_clear_from_this_machine_alone_and_only_if_somebody_is_there() {
    let (releases, inbox) = (Releases::start().await, tempfile::tempdir().unwrap());
    for (url, code) in [
        ("http://aiwm.invalid/releases", "INSECURE_URL"),
        ("ftp://127.0.0.1/releases", "CONTROLLER_INVALID"),
        ("http://127.0.0.1:1/releases", "DOWNLOAD_FAILED"),
    ] {
        let offer = NodeUpdate { releases_url: Some(url.to_owned()), ..releases.offer() };
        assert_eq!(bring_offered(offer, inbox.path()).await.unwrap_err().code.as_str(), code, "{url}");
    }
}
