//! Style, script and icon. Each is named after what it holds, so that a browser keeps it for good and never
//! has an old one.

use std::{
    io::{self, Write},
    sync::LazyLock,
};

use axum::{
    extract::Path,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

pub(super) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("pages", "css", "text/css; charset=utf-8", include_bytes!("../../assets/pages.css"))
});
pub(super) static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("pages", "js", "text/javascript; charset=utf-8", include_bytes!("../../assets/pages.js"))
});
pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_bytes!("../../assets/icon.svg")));

/// For as long as browsers keep anything.
const FOR_GOOD: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// A file that pages name.
pub(super) struct Asset {
    name: String,
    kind: &'static str,
    bytes: &'static [u8],
}

impl Asset {
    fn new(stem: &str, extension: &str, kind: &'static str, bytes: &'static [u8]) -> Self {
        let hash = hex::encode(Sha256::digest(bytes));
        let short = hash.get(..12).unwrap_or_default();
        Self { name: format!("{stem}.{short}.{extension}"), kind, bytes }
    }

    /// Its address below `/`.
    pub(super) fn path(&self) -> String {
        format!("ui/assets/{}", self.name)
    }

    fn answer(&self) -> Response {
        let etag =
            HeaderValue::try_from(format!("\"{}\"", self.name)).unwrap_or(HeaderValue::from_static("\"\""));
        let kind = HeaderValue::from_static(self.kind);
        ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, FOR_GOOD), (header::ETAG, etag)], self.bytes)
            .into_response()
    }
}

pub(super) async fn serve(Path(name): Path<String>) -> Response {
    let all = [&STYLE, &SCRIPT, &ICON];
    match all.into_iter().find(|asset| asset.name == name) {
        Some(asset) => asset.answer(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What browsers ask for by themselves.
pub(super) async fn icon() -> Response {
    let mut response = ICON.answer();
    // This address does not change with what it holds.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// `bytes` in gzip.
pub(super) fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let pack = || -> io::Result<Vec<u8>> {
        let mut packer = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::new(5));
        packer.write_all(bytes)?;
        packer.finish()
    };
    pack().ok()
}
