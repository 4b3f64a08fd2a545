//! The controller's WebSocket endpoint as a checked value: `wss://`, or `ws://` to this very
//! machine; plain `ws://` elsewhere only when a person has said so. Does not connect.

use std::fmt;

use aio_host::dial::is_this_machine;
use aio_protocol::{error_code::ErrorCode, failure::Failure};
use tokio_tungstenite::tungstenite::http::Uri;

/// Where the controller listens for workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Uri);

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is no URL, or not one of a WebSocket.
    #[error("`{0}` is not a WebSocket URL such as wss://aiwm.example/ws/node")]
    Unreadable(String),
    /// A password in a URL ends up in logs.
    #[error("the controller's URL carries a user name or password, which it must not")]
    Credentials,
    /// The token would cross the network in the clear.
    #[error("{0} is not encrypted and its host is not this machine")]
    Insecure(String),
}

impl From<EndpointError> for Failure {
    fn from(error: EndpointError) -> Self {
        let code = match error {
            EndpointError::Unreadable(_) | EndpointError::Credentials => ErrorCode::ConfigInvalid,
            EndpointError::Insecure(_) => ErrorCode::InsecureUrl,
        };
        Self::caused(code, &error)
    }
}

impl Endpoint {
    /// Reads `text`; `insecure` allows `ws://` to other machines.
    pub fn parse(text: &str, insecure: bool) -> Result<Self, EndpointError> {
        let text = text.trim();
        let unreadable = || EndpointError::Unreadable(text.to_owned());
        if text.contains('@') {
            return Err(EndpointError::Credentials);
        }
        let uri: Uri = text.parse().map_err(|_| unreadable())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(unreadable)?;
        match uri.scheme_str() {
            Some("wss") => Ok(Self(uri)),
            Some("ws") if insecure || is_this_machine(host) => Ok(Self(uri)),
            Some("ws") => Err(EndpointError::Insecure(text.to_owned())),
            _ => Err(unreadable()),
        }
    }

    /// Whether the connection is encrypted.
    pub fn encrypted(&self) -> bool {
        self.0.scheme_str() == Some("wss")
    }

    /// Whether it is on this very machine.
    pub fn is_this_machine(&self) -> bool {
        self.0.host().is_some_and(is_this_machine)
    }

    /// Whether the token crosses the network in the clear.
    pub fn exposed(&self) -> bool {
        !self.encrypted() && !self.is_this_machine()
    }

    /// As log lines name it: a connection in the clear says so in each.
    pub fn in_words(&self) -> String {
        if self.exposed() { format!("{self} (in the clear: insecure_http)") } else { self.to_string() }
    }

    /// The host, as URLs write it.
    pub(crate) fn host(&self) -> Option<&str> {
        self.0.host()
    }

    /// The port, the scheme's own where none is written.
    pub(crate) fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.encrypted() { 443 } else { 80 })
    }

    /// For the dialler.
    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_reaches_only_this_machine_unless_a_person_says_so() {
        for text in [
            "wss://aiwm.example/ws/node",
            "ws://127.0.0.1:3305/ws/node",
            "ws://127.9.9.9/",
            "ws://[::1]:3305/ws/node",
            "ws://localhost:3305/ws/node",
        ] {
            assert_eq!(Endpoint::parse(text, false).map(|endpoint| endpoint.exposed()), Ok(false), "{text}");
        }
        for text in ["ws://aiwm.example/ws/node", "ws://10.0.0.1/ws/node", "ws://localhost.evil.example/"] {
            let error = Endpoint::parse(text, false).unwrap_err();
            assert_eq!(Failure::from(error).code, ErrorCode::InsecureUrl, "{text}");
            let endpoint = Endpoint::parse(text, true).unwrap();
            assert!(endpoint.exposed() && endpoint.in_words().contains("insecure_http"), "{text}");
        }
    }

    #[test]
    fn what_is_no_websocket_url_is_refused() {
        for text in
            ["", "aiwm.example", "https://aiwm.example", "wss://", "/ws/node", "ws:", "wss://u:p@host/"]
        {
            let error = Endpoint::parse(text, true).unwrap_err();
            assert!(!error.to_string().contains("u:p"), "{error}");
            assert_eq!(Failure::from(error).code, ErrorCode::ConfigInvalid, "{text}");
        }
    }
}
