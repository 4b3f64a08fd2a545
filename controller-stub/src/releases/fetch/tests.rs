//! Every kind of source, as its documentation says that it answers, on this machine; and what goes wrong.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use aio_protocol::error_code::ErrorCode;
use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use self_update::futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};

use super::*;
use crate::releases::{
    folder::optional,
    import::tests::{AMD64, Release, World, now, program, write_index},
};

const TOKEN: &str = "a-token-that-nobody-may-see";

/// What was asked of a server: path, token, range.
type Asked = (String, Option<String>, Option<String>);

/// Answers in place of a file.
type Answer = Arc<dyn Fn(&HeaderMap) -> Response + Send + Sync>;

/// A server of a tree of releases and of the three forges' APIs about it.
pub(crate) struct Server {
    world: World,
    release: Release,
    base: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// By the end of the path, the first that fits.
    instead: Arc<Mutex<Vec<(String, Answer)>>>,
}

impl Server {
    /// One that serves v1.1.0 with its index.
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let release = Release::new("v1.1.0").with("linux-amd64", program(AMD64, &"worker ".repeat(20_000)));
        let world = World::new();
        fs::create_dir_all(world.published()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { world, release, base, asked: Arc::default(), instead: Arc::default() };
        server.publish(1);
        let (tree, base) = (server.world.tree(), server.base.clone());
        let (asked, instead) = (server.asked.clone(), server.instead.clone());
        let answer = move |request: Request| {
            let (tree, base) = (tree.clone(), base.clone());
            let path = request.uri().path().to_owned();
            let headers = request.headers().clone();
            let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            asked.lock().unwrap().push((path.clone(), text(header::AUTHORIZATION), text(header::RANGE)));
            let other =
                instead.lock().unwrap().iter().find(|(end, _)| path.ends_with(end)).map(|it| it.1.clone());
            async move {
                match other {
                    Some(other) => other(&headers),
                    None => answer(&tree, &base, &path, &headers),
                }
            }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        server
    }

    /// Publishes v1.1.0 with one more file.
    pub(crate) fn publish_with(&mut self, name: &str, bytes: Vec<u8>) {
        self.release.files.insert(name.to_owned(), bytes);
        self.publish(2);
    }

    /// The tree, and the key that has signed it.
    pub(crate) fn tree(&self) -> (ReleaseSource, String) {
        let source = ReleaseSource { place: format!("{}/tree", self.base), ..ReleaseSource::default() };
        (source, self.release.key.pk.to_base64())
    }

    fn publish(&self, serial: u64) {
        self.release.write(&self.world.tree());
        write_index(&self.world, &self.release.key, serial, |_| {});
    }

    /// The source `place`, in which `BASE` stands for this server, with a token.
    fn source(&self, place: &str, token: &str) -> Source {
        let token_file = self.world.tree().with_file_name("token");
        fs::write(&token_file, token).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&token_file, mode).unwrap();
        let bucket = place.starts_with("s3:");
        let from = ReleaseSource {
            place: place.replace("BASE", &self.base),
            token_file: Some(token_file),
            s3_endpoint: bucket.then(|| self.base.clone()),
            s3_region: None,
        };
        let short = Duration::from_millis(300);
        let patience = Patience { silence: short, small: short * 3, pause: Duration::from_millis(1) };
        Source::with_patience(&from, patience).unwrap()
    }

    async fn fetch_from(&self, place: &str, token: &str) -> Result<Import, FetchError> {
        let keys = self.release.public();
        self.source(place, token).fetch(&self.world.published(), keys, None, now()).await
    }

    async fn fetch(&self) -> Result<Import, FetchError> {
        self.fetch_from("BASE/tree", TOKEN).await
    }

    /// The code of the refusal, which names no token and leaves nothing but what may be resumed.
    async fn refused(&self) -> ErrorCode {
        let error = self.fetch().await.unwrap_err();
        let told = format!("{error:?} {error}");
        assert!(!told.contains(TOKEN), "{told}");
        assert!(!self.world.published().join("v1.1.0").exists());
        assert_eq!(self.world.published().join(UNFINISHED).exists(), error.may_be_resumed(), "{told}");
        error.code()
    }

    /// Answers so for paths that end so, before what was said earlier.
    fn answers(&self, end: &str, answer: impl Fn(&HeaderMap) -> Response + Send + Sync + 'static) {
        self.instead.lock().unwrap().insert(0, (end.to_owned(), Arc::new(answer)));
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn served(&self, name: &str) -> Vec<u8> {
        fs::read(self.world.tree().join("v1.1.0").join(name)).unwrap()
    }
}

fn answer(tree: &Path, base: &str, path: &str, headers: &HeaderMap) -> Response {
    let file = ["/tree/", "/bucket/aio/", "/asset/"].iter().find_map(|folder| path.strip_prefix(folder));
    if let Some(file) = file {
        let Some(bytes) = optional(&tree.join(file)).unwrap() else {
            return StatusCode::NOT_FOUND.into_response();
        };
        return part(&bytes, headers);
    }
    let list = match path {
        "/api/v3/repos/acme/aio/releases" => releases(tree, |version, files| {
            let assets: Vec<_> = files.iter().map(|file| json!({
                "name": asset_name(file), "url": format!("{base}/asset/{file}"), "size": 1, "state": "uploaded",
                "browser_download_url": format!("{base}/download/{file}"),
            })).collect();
            json!({ "tag_name": version, "name": version, "created_at": "2025-12-11T12:00:00Z", "body": "",
                "html_url": base, "draft": false, "prerelease": false, "assets": assets })
        }),
        "/api/v4/projects/acme%2Faio/releases" => releases(tree, |version, files| {
            let links: Vec<_> = files.iter().map(|file| json!({
                "id": 1, "name": asset_name(file), "url": format!("{base}/asset/{file}"), "link_type": "other",
            })).collect();
            json!({ "tag_name": version, "name": version, "created_at": "2025-12-11T12:00:00.000Z", "description": "",
                "_links": { "self": base }, "assets": { "count": 1, "sources": [], "links": links } })
        }),
        "/api/v1/repos/acme/aio/releases" => releases(tree, |version, files| {
            let assets: Vec<_> = files.iter().map(|file| json!({
                "id": 1, "name": asset_name(file), "size": 1, "browser_download_url": format!("{base}/asset/{file}"),
            })).collect();
            json!({ "id": 1, "tag_name": version, "name": version, "body": "", "html_url": base, "draft": false,
                "prerelease": false, "created_at": "2025-12-11T12:00:00Z", "assets": assets })
        }),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    axum::Json(list).into_response()
}

fn asset_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap()
}

/// The list of a forge's API: the versions of the tree, and one that is none.
fn releases(tree: &Path, release: impl Fn(&str, &[String]) -> Value) -> Value {
    let mut versions = BTreeMap::from([("nightly".to_owned(), Vec::new())]);
    for folder in fs::read_dir(tree).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
    {
        let version = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let names =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<_> = names.map(|name| format!("{version}/{name}")).collect();
        files.extend([INDEX.to_owned(), signature_of(INDEX)]);
        versions.insert(version, files);
    }
    versions.iter().map(|(version, files)| release(version, files)).collect()
}

/// The file, or the rest of it that was asked for.
fn part(bytes: &[u8], headers: &HeaderMap) -> Response {
    let range = headers.get(header::RANGE).map(|range| range.to_str().unwrap());
    let from =
        range.map(|range| range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap());
    match from {
        None => bytes.to_vec().into_response(),
        Some(from) => {
            let from: usize = from;
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], bytes[from..].to_vec())
                .into_response()
        }
    }
}

/// The first half, and then nothing more.
fn half(bytes: &[u8]) -> Response {
    let (size, half) = (bytes.len(), bytes[..bytes.len() / 2].to_vec());
    let pieces =
        stream::iter([Ok::<_, std::io::Error>(axum::body::Bytes::from(half))]).chain(stream::pending());
    ([(header::CONTENT_LENGTH, size.to_string())], Body::from_stream(pieces)).into_response()
}

#[tokio::test]
async fn the_newest_release_comes_from_every_kind_of_source_and_once() {
    for place in [
        "github:BASE/acme/aio",
        "gitlab:BASE/acme/aio",
        "gitea:BASE/acme/aio",
        "BASE/tree",
        "s3://bucket/aio",
    ] {
        let server = Server::start().await;
        let token = if place.starts_with("s3:") { "AKIA\nthe secret\n" } else { TOKEN };
        let fetched =
            server.fetch_from(place, token).await.unwrap_or_else(|error| panic!("{place}: {error:?}"));
        assert_eq!(fetched.versions.len(), 1, "{place}");
        assert_eq!(fetched.index.unwrap().outcome, Some(Outcome::Added));
        let published = fs::read(server.world.published().join("v1.1.0/linux-amd64")).unwrap();
        assert_eq!(published, server.served("linux-amd64"));
        assert_eq!(fs::read_dir(server.world.published()).unwrap().count(), 3, "something was left behind");
        for (path, token, _) in server.asked() {
            let token = token.unwrap_or_else(|| panic!("{path} without a token"));
            assert!(
                token == format!("Bearer {TOKEN}") || token.starts_with("AWS4-HMAC-SHA256 Credential=AKIA/")
            );
        }

        let again = server.fetch_from(place, token).await.unwrap();
        assert_eq!((again.versions.len(), again.index.unwrap().outcome), (0, Some(Outcome::AlreadyThere)));
        assert!(server.asked().len() <= 3, "{place}: only what tells the news is asked for");
        server.publish(2);
        let renewed = server.fetch_from(place, token).await.unwrap();
        assert_eq!(renewed.index.unwrap().outcome, Some(Outcome::Replaced), "an index alone");
        server.publish(1);
        assert_eq!(server.fetch_from(place, token).await.unwrap_err().code(), ErrorCode::IndexReplayed);
    }
}

#[tokio::test]
async fn whoever_asks_too_much_is_told_when_to_come_again() {
    for (status, name, value) in [
        (StatusCode::FORBIDDEN, "retry-after", "120"),
        (StatusCode::TOO_MANY_REQUESTS, "retry-after", "120"),
        (StatusCode::FORBIDDEN, "x-ratelimit-remaining", "0"),
    ] {
        for place in ["github:BASE/acme/aio", "BASE/tree"] {
            let server = Server::start().await;
            for end in ["/releases", INDEX, "index.json.minisig"] {
                server.answers(end, move |_| (status, [(name, value)]).into_response());
            }
            let error = server.fetch_from(place, TOKEN).await.unwrap_err();
            let wait = error.retry_after().unwrap();
            assert_eq!(wait, Duration::from_secs(if value == "0" { 60 } else { 120 }));
            assert_eq!(
                (error.code(), server.asked().len()),
                (ErrorCode::DownloadFailed, 1),
                "it is left alone"
            );
        }
    }
}

#[tokio::test]
async fn a_token_that_is_refused_is_said_and_not_shown() {
    for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
        let server = Server::start().await;
        server.answers("minisig", move |_| status.into_response());
        assert_eq!(server.refused().await, ErrorCode::DownloadFailed);
        assert_eq!(server.asked().len(), 1, "it is not tried again");
    }
}

#[tokio::test]
async fn a_download_that_breaks_off_is_resumed_in_this_try_or_the_next() {
    let server = Server::start().await;
    let bytes = server.served("linux-amd64");
    let size = bytes.len();
    server.answers("/linux-amd64", move |headers| {
        if headers.contains_key(header::RANGE) { part(&bytes, headers) } else { half(&bytes) }
    });
    assert_eq!(server.fetch().await.unwrap().versions.len(), 1);
    let asked = server.asked();
    let ranges: Vec<_> =
        asked.iter().filter(|it| it.0.ends_with("/linux-amd64")).filter_map(|it| it.2.clone()).collect();
    assert_eq!(ranges.len(), 1, "{ranges:?}");

    let server = Server::start().await;
    let bytes = server.served("linux-amd64");
    server.answers("/linux-amd64", move |headers| {
        if headers.contains_key(header::RANGE) {
            StatusCode::BAD_GATEWAY.into_response()
        } else {
            half(&bytes)
        }
    });
    assert_eq!(server.refused().await, ErrorCode::DownloadFailed);
    server.instead.lock().unwrap().clear();
    server.asked();
    assert_eq!(server.fetch().await.unwrap().versions.len(), 1);
    let resumed = server.asked().into_iter().any(|it| it.0.ends_with("/linux-amd64") && it.2.is_some());
    assert!(resumed, "the half of {size} bytes was fetched again");
}

#[tokio::test]
async fn a_file_that_is_shorter_than_it_should_be_is_not_taken() {
    let server = Server::start().await;
    let bytes = server.served("linux-amd64");
    server.answers("/linux-amd64", move |_| bytes[..100].to_vec().into_response());
    assert_eq!(server.refused().await, ErrorCode::SizeMismatch);
}

#[tokio::test]
async fn a_file_that_was_swapped_is_not_taken_and_fetched_anew_the_next_time() {
    let server = Server::start().await;
    let other = program(AMD64, &"Worker ".repeat(20_000));
    assert_eq!(other.len(), server.served("linux-amd64").len());
    server.answers("/linux-amd64", move |_| other.clone().into_response());
    assert_eq!(server.refused().await, ErrorCode::ChecksumMismatch);
    server.instead.lock().unwrap().clear();
    assert_eq!(server.fetch().await.unwrap().versions.len(), 1);
}

#[tokio::test]
async fn nothing_large_is_taken_from_a_stranger() {
    let server = Server::start().await;
    let stranger = Release::new("v1.1.0");
    let sums = server.served(SUMS);
    let comment = label::comment(&stranger.version, SUMS);
    let signature =
        minisign::sign(None, &stranger.key.sk, std::io::Cursor::new(sums), Some(&comment), None).unwrap();
    server.answers("SHA256SUMS.minisig", move |_| signature.to_string().into_response());
    assert_eq!(server.refused().await, ErrorCode::SignatureForeign);
    server.answers("SHA256SUMS.minisig", |_| StatusCode::NOT_FOUND.into_response());
    assert_eq!(server.refused().await, ErrorCode::SignatureMissing);
    write_index(&server.world, &stranger.key, 2, |_| {});
    assert_eq!(server.refused().await, ErrorCode::SignatureForeign);
    assert!(server.asked().iter().all(|it| !it.0.ends_with("/linux-amd64")));

    let keys = Keys::default();
    let refused = server.source("BASE/tree", TOKEN).fetch(&server.world.published(), keys, None, now()).await;
    assert_eq!(refused.unwrap_err().code(), ErrorCode::ConfigInvalid, "nor where no key is configured");
}

#[tokio::test]
async fn an_answer_that_never_ends_is_cut_off() {
    fn endless() -> Response {
        let zeros =
            std::iter::repeat_with(|| Ok::<_, std::io::Error>(axum::body::Bytes::from(vec![0; 65536])));
        Body::from_stream(stream::iter(zeros)).into_response()
    }
    for end in ["/linux-amd64", "manifest.json", "minisig", INDEX] {
        let server = Server::start().await;
        server.answers(end, |_| endless());
        assert_eq!(server.refused().await, ErrorCode::SizeMismatch, "{end}");
    }
    let server = Server::start().await;
    server.answers("/releases", |_| endless());
    let error = server.fetch_from("github:BASE/acme/aio", TOKEN).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::SizeMismatch);
}

#[tokio::test]
async fn a_source_that_falls_silent_is_given_up() {
    for end in ["/linux-amd64", INDEX] {
        let server = Server::start().await;
        server.answers(end, |_| {
            Body::from_stream(stream::pending::<std::io::Result<Vec<u8>>>()).into_response()
        });
        assert_eq!(server.refused().await, ErrorCode::DownloadFailed, "{end}");
    }
}

#[tokio::test]
async fn a_release_without_a_file_that_it_lists_is_none() {
    for place in ["github:BASE/acme/aio", "BASE/tree"] {
        let server = Server::start().await;
        fs::remove_file(server.world.tree().join("v1.1.0/linux-amd64")).unwrap();
        let error = server.fetch_from(place, TOKEN).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::ReleaseInvalid, "{place}: {error}");
        assert!(error.to_string().ends_with("has no file linux-amd64"), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_to_another_host_does_not_carry_the_token() {
    let server = Server::start().await;
    // Another name of this machine is another host.
    let elsewhere = server.base.replace("127.0.0.1", "localhost");
    server.answers("/asset/v1.1.0/linux-amd64", move |_| {
        (StatusCode::FOUND, [(header::LOCATION, format!("{elsewhere}/tree/v1.1.0/linux-amd64"))])
            .into_response()
    });
    server.fetch_from("github:BASE/acme/aio", TOKEN).await.unwrap();
    let asked = server.asked();
    let of = |path: &str| asked.iter().find(|it| it.0 == path).unwrap().1.is_some();
    assert!(of("/asset/v1.1.0/linux-amd64") && !of("/tree/v1.1.0/linux-amd64"));
}

#[tokio::test]
async fn an_asset_at_another_host_is_asked_for_without_the_token() {
    let server = Server::start().await;
    let (elsewhere, tree) = (server.base.replace("127.0.0.1", "localhost"), server.world.tree());
    server.answers("/releases", move |headers| {
        answer(&tree, &elsewhere, "/api/v1/repos/acme/aio/releases", headers)
    });
    server.fetch_from("gitea:BASE/acme/aio", TOKEN).await.unwrap();
    assert!(server.asked().iter().all(|(path, token, _)| token.is_some() == path.ends_with("/releases")));
}

#[tokio::test]
async fn an_index_that_is_being_replaced_is_read_again() {
    let server = Server::start().await;
    let old = fs::read(server.world.tree().join(signature_of(INDEX))).unwrap();
    server.publish(2);
    let (reads, new) = (Mutex::new(0), fs::read(server.world.tree().join(signature_of(INDEX))).unwrap());
    server.answers("index.json.minisig", move |_| {
        let mut reads = reads.lock().unwrap();
        *reads += 1;
        if *reads == 1 { old.clone() } else { new.clone() }.into_response()
    });
    assert_eq!(server.fetch().await.unwrap().index.unwrap().serial, 2);
}

#[tokio::test]
async fn what_others_may_read_is_no_token_and_two_fetches_do_not_meet() {
    let server = Server::start().await;
    let token_file = server.world.tree().with_file_name("open");
    fs::write(&token_file, TOKEN).unwrap();
    let mut from = ReleaseSource {
        place: server.base.clone(),
        token_file: Some(token_file.clone()),
        ..ReleaseSource::default()
    };
    fs::set_permissions(&token_file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(Source::new(&from).err().unwrap().code(), ErrorCode::SecretExposed);
    fs::set_permissions(&token_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&token_file, "two\nlines\n").unwrap();
    assert_eq!(Source::new(&from).err().unwrap().code(), ErrorCode::FileFailed);
    from.token_file = Some(token_file.with_file_name("none"));
    assert_eq!(Source::new(&from).err().unwrap().code(), ErrorCode::FileFailed);

    let place = server.world.published().join(UNFINISHED);
    fs::create_dir_all(&place).unwrap();
    let held = lock(&place).unwrap();
    assert!(matches!(server.fetch().await, Err(FetchError::Locked(_))));
    drop(held);
    server.fetch().await.unwrap();
}
