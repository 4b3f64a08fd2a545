//! What a node of AIWM keeps: who it is, its secret, and where AIWM is. One JSON document, which lies
//! where a node token of our own controller would. The secret is in no `Debug` text.

use serde::{Deserialize, Serialize};

use super::{SOCKET_PATH, SOCKET_QUERY, rest::Hidden, setup::SetupClaims};
use crate::ids::NodeId;

/// The credentials of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credentials {
    /// Marks the document.
    #[serde(rename = "type")]
    pub kind: CredentialsKind,
    /// The node.
    pub node_id: NodeId,
    /// What it logs in with.
    pub secret: Hidden,
    /// AIWM's HTTP base, without a slash at its end.
    pub api: String,
    /// The address of its WebSocket, whole.
    pub socket: String,
    /// MONA's HTTP base, without a slash at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mona: Option<String>,
    /// When the setup token was made that the secret is of, in seconds since the Unix epoch.
    #[serde(default)]
    pub iat: i64,
}

/// Marks the credentials of a node of AIWM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CredentialsKind {
    /// The only kind.
    #[serde(rename = "aiwm-node")]
    AiwmNode,
}

/// Why a setup token names no address to connect to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the token names `{address}`, which is no address of {expected}")]
pub struct UnusableAddress {
    address: String,
    expected: &'static str,
}

impl Credentials {
    /// What a bootstrap with this token makes known.
    pub fn bootstrapped(claims: &SetupClaims, secret: Hidden) -> Result<Self, UnusableAddress> {
        Ok(Self {
            kind: CredentialsKind::AiwmNode,
            node_id: claims.node_id.clone(),
            secret,
            api: base(&claims.api_base_url)?,
            socket: socket(claims)?,
            mona: claims.mona_base_url.as_deref().filter(|url| !url.is_empty()).map(base).transpose()?,
            iat: claims.iat,
        })
    }

    /// Whether `text` is such a document, whole or broken.
    pub fn are_in(text: &str) -> bool {
        text.trim_start().starts_with('{')
    }

    /// Reads the document.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map_err(|error| {
            // The parser's words may quote what it stumbled over.
            let category = error.classify();
            serde::de::Error::custom(format!("{category:?} fault in line {}", error.line()))
        })
    }

    /// The document, with a line's end.
    pub fn write(&self) -> String {
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// An HTTP base without a slash at its end.
fn base(url: &str) -> Result<String, UnusableAddress> {
    let url = url.trim();
    let is_http = url.starts_with("http://") || url.starts_with("https://");
    if !is_http || url.contains(['?', '#', ' ']) {
        return Err(UnusableAddress { address: shown(url), expected: "an HTTP service" });
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// The address of the WebSocket. As every client of Socket.IO has it: the host of the base, and the
/// path that the token names beside it. The base's own path is the namespace, whatever stands before it.
fn socket(claims: &SetupClaims) -> Result<String, UnusableAddress> {
    let named = claims.ws_base_url.as_deref().filter(|url| !url.is_empty()).unwrap_or(&claims.api_base_url);
    let unusable = |address: &str| UnusableAddress { address: shown(address), expected: "a WebSocket" };
    let (scheme, rest) = named.trim().split_once("://").ok_or_else(|| unusable(named))?;
    let scheme = match scheme {
        "ws" | "http" => "ws",
        "wss" | "https" => "wss",
        _ => return Err(unusable(named)),
    };
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() || host.contains(['?', '#', ' ', '@']) {
        return Err(unusable(named));
    }
    let path = claims.ws_path.as_deref().filter(|path| path.starts_with('/')).unwrap_or(SOCKET_PATH);
    if path.contains(['?', '#', ' ']) {
        return Err(unusable(path));
    }
    Ok(format!("{scheme}://{host}{}/?{SOCKET_QUERY}", path.trim_end_matches('/')))
}

fn shown(address: &str) -> String {
    crate::text::clean(address, 200)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claims(api: &str, ws: Option<&str>, path: Option<&str>) -> SetupClaims {
        serde_json::from_value(serde_json::json!({"type": "node-setup", "nodeId": "69396100cd71623c7bbfbfee",
            "apiBaseUrl": api, "wsBaseUrl": ws, "wsPath": path, "exp": 1}))
        .unwrap()
    }

    fn made(api: &str, ws: Option<&str>, path: Option<&str>) -> Result<Credentials, UnusableAddress> {
        Credentials::bootstrapped(&claims(api, ws, path), Hidden("secret".into()))
    }

    #[test]
    fn the_namespace_is_no_part_of_the_address_whatever_stands_before_it() {
        for (ws, path, socket) in [
            (Some("ws://127.0.0.1:3003/ws/node"), Some("/socket.io"), "ws://127.0.0.1:3003/socket.io/"),
            (Some("wss://a.example/ws/node"), None, "wss://a.example/socket.io/"),
            (Some("wss://a.example/ws/node/"), Some("/socket.io/"), "wss://a.example/socket.io/"),
            (
                Some("https://a.example:8443/aiwm/ws/node"),
                Some("/aiwm/socket.io"),
                "wss://a.example:8443/aiwm/socket.io/",
            ),
            (Some("wss://a.example"), Some("/s"), "wss://a.example/s/"),
            (None, None, "wss://api.example/socket.io/"),
            (Some(""), Some("socket.io"), "wss://api.example/socket.io/"),
        ] {
            let credentials = made("https://api.example/v1/", ws, path).unwrap();
            assert_eq!(credentials.socket, format!("{socket}?EIO=4&transport=websocket"), "{ws:?}");
            assert_eq!(credentials.api, "https://api.example/v1");
        }
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        for (api, ws) in [
            ("ftp://a", None),
            ("", None),
            ("https://a?x", None),
            ("https://a", Some("a.example/ws/node")),
            ("https://a", Some("wss:///ws/node")),
            ("https://a", Some("wss://a#x/ws/node")),
        ] {
            assert!(made(api, ws, None).is_err(), "{api} {ws:?}");
        }
    }

    #[test]
    fn the_document_is_read_as_it_was_written_and_its_secret_is_shown_nowhere() {
        let credentials = made("https://api.example", None, None).unwrap();
        let text = credentials.write();
        assert!(Credentials::are_in(&text) && !Credentials::are_in("a.b.c"));
        assert_eq!(Credentials::read(&text).unwrap(), credentials);
        assert!(!format!("{credentials:?}").contains("secret\""), "{credentials:?}");
        for broken in [text.replace("secret", "sesame"), "{}".into(), "{\"type\":\"secret\"}".into()] {
            let error = Credentials::read(&broken).unwrap_err().to_string();
            assert!(!error.contains("secret") && !error.contains("sesame"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}", api in ".{0,40}", ws in "[a-z:/?# ]{0,40}", path in ".{0,20}") {
            let _ = Credentials::read(&text);
            let _ = made(&api, Some(&ws), Some(&path));
        }
    }
}
