//! Which releases a repository has, and where their assets lie, as the crate `self_update` lists
//! them. Its requests go through our client, which bounds them and shows the token to the forge
//! alone. Downloads nothing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aio_protocol::release::ReleaseVersion;
use reqwest::{Url, header::HeaderMap};
use self_update::{
    Releases,
    backends::{gitea, github, gitlab},
    bytes::Bytes,
    futures_util::{
        future::BoxFuture,
        stream::{self, BoxStream, StreamExt},
    },
    http_client::{AsyncHttpClient, AsyncHttpResponse},
};

use super::{client::Client, error::FetchError, place::Forge};

/// The largest page of a list.
const MAX_PAGE_BYTES: u64 = 8 * 1024 * 1024;

/// Longest time for a whole list.
const LIST_TIMEOUT: Duration = Duration::from_secs(180);

/// The assets of each release by name.
pub(super) type Assets = BTreeMap<ReleaseVersion, BTreeMap<String, Url>>;

/// Lists the releases of a repository. What is no version is left out.
pub(super) async fn list(
    (forge, api, owner, name): (Forge, &Url, &str, &str),
    client: Client,
) -> Result<Assets, FetchError> {
    let transport = Arc::new(Transport { client, failed: Mutex::default() });
    let base = api.as_str().trim_end_matches('/');
    macro_rules! list_of {
        ($backend:ident, $base:ident) => {{
            let mut list = $backend::ReleaseList::configure();
            list.$base(base).repo_owner(owner).repo_name(name).retries(0);
            list.http_client_async(transport.clone()).build()
        }};
    }
    let listed = async {
        match forge {
            Forge::GitHub => list_of!(github, api_base_url)?.fetch_async().await,
            Forge::GitLab => list_of!(gitlab, host)?.fetch_async().await,
            Forge::Gitea => list_of!(gitea, host)?.fetch_async().await,
        }
    };
    let listed = tokio::time::timeout(LIST_TIMEOUT, listed).await;
    let failed = |source| FetchError::Transport { url: base.to_owned(), source };
    match listed {
        Ok(Ok(releases)) => Ok(assets(releases)),
        // What the transport knows says more than what the crate makes of it.
        Ok(Err(error)) => Err(transport.take_failure().unwrap_or_else(|| failed(Box::new(error)))),
        Err(elapsed) => Err(failed(Box::new(elapsed))),
    }
}

fn assets(releases: Releases) -> Assets {
    let mut found = Assets::new();
    for release in releases.into_vec() {
        let Ok(version) = format!("v{}", release.version()).parse() else { continue };
        let assets = release.assets().iter();
        let assets =
            assets.filter_map(|it| Some((it.name().to_owned(), Url::parse(it.download_url()).ok()?)));
        found.insert(version, assets.collect());
    }
    found
}

/// Our client as the crate's. The credential is our client's affair; the crate knows none.
struct Transport {
    client: Client,
    failed: Mutex<Option<FetchError>>,
}

impl Transport {
    fn take_failure(&self) -> Option<FetchError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn page(&self, url: &str) -> self_update::Result<Box<dyn AsyncHttpResponse>> {
        let url = Url::parse(url).map_err(self_update::Error::transport)?;
        match self.client.small(&url, "application/json", MAX_PAGE_BYTES).await {
            Ok((headers, bytes)) => Ok(Box::new(Page { headers, bytes: bytes.into() })),
            Err(error) => {
                let told = self_update::Error::transport(error.to_string());
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(told)
            }
        }
    }
}

impl AsyncHttpClient for Transport {
    fn get<'a>(
        &'a self,
        url: &'a str,
        _headers: &'a HeaderMap,
        _timeout: Option<Duration>,
    ) -> BoxFuture<'a, self_update::Result<Box<dyn AsyncHttpResponse>>> {
        Box::pin(self.page(url))
    }
}

struct Page {
    headers: HeaderMap,
    bytes: Bytes,
}

impl AsyncHttpResponse for Page {
    fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    fn text(self: Box<Self>) -> BoxFuture<'static, self_update::Result<String>> {
        Box::pin(async move { String::from_utf8(self.bytes.to_vec()).map_err(self_update::Error::transport) })
    }

    fn bytes_stream(self: Box<Self>) -> BoxStream<'static, self_update::Result<Bytes>> {
        stream::once(async move { Ok(self.bytes) }).boxed()
    }
}
