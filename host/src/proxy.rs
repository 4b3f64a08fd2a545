//! The HTTP proxy on the way to the controller, where there is one: named by somebody, or found in
//! the variables that everybody knows (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`).
//! Connects through it with `CONNECT`; whose word counts is the callers' to decide.

mod exceptions;

use std::error::Error;

use http::{HeaderValue, Uri};
use hyper_util::{
    client::{
        legacy::connect::proxy::Tunnel,
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::dial::{Dialer, is_this_machine};
use exceptions::Exceptions;

/// A variable of the environment.
type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A proxy. Its `Debug` shows no password.
#[derive(Debug, Clone)]
pub struct Proxy(Intercept);

/// A text that names no proxy that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} names no proxy of the form http://HOST:PORT, the only one that is supported")]
pub struct NoProxy(String);

/// Why there is no connection through a proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// The proxy itself is not reached.
    #[error("the proxy is not reached: {0}")]
    Unreachable(String),
    /// The proxy does not want to.
    #[error("the proxy refuses: {0}")]
    Refused(String),
}

impl Proxy {
    /// The proxy that `text` names; `source` is where it stands.
    pub fn named(text: &str, source: &str) -> Result<Self, NoProxy> {
        let matcher = Matcher::builder().all(unquoted(text).to_owned()).build();
        let anywhere = Uri::from_static("https://aiwm.invalid");
        matcher.intercept(&anywhere).and_then(Self::usable).ok_or_else(|| NoProxy(source.to_owned()))
    }

    /// The proxy that the environment wants between this machine and `target` (`http`, `https`,
    /// `ws` or `wss`), `NO_PROXY` obeyed. This very machine is never reached through one: a proxy
    /// would look for it on its own.
    pub fn from_environment(target: &Uri) -> Result<Option<Self>, NoProxy> {
        Ok(url_from_environment(target)?.map(|(_, proxy)| proxy))
    }

    fn found_in(variables: Variables<'_>, target: &Uri) -> Result<Option<(String, Self)>, NoProxy> {
        let Some(target) = over_http(target) else { return Ok(None) };
        let (host, port) = (target.host().unwrap_or_default(), target.port_u16().unwrap_or_default());
        if is_this_machine(host) || exceptions(variables).cover(host, port) {
            return Ok(None);
        }
        let specific = match target.scheme_str() {
            Some("https") => ["https_proxy", "HTTPS_PROXY"],
            // A CGI program gets a request's `Proxy:` header as HTTP_PROXY.
            _ if variables("REQUEST_METHOD").is_some() => ["http_proxy", "http_proxy"],
            _ => ["http_proxy", "HTTP_PROXY"],
        };
        let found = specific.into_iter().chain(["all_proxy", "ALL_PROXY"]).find_map(|name| {
            let value = variables(name)?;
            let text = unquoted(&value);
            (!text.is_empty()).then(|| (name, text.to_owned()))
        });
        let Some((name, text)) = found else { return Ok(None) };
        let proxy = Self::named(&text, &format!("{name} in the environment"))?;
        Ok(Some((text, proxy)))
    }

    fn usable(intercept: Intercept) -> Option<Self> {
        let uri = intercept.uri();
        (uri.scheme_str() == Some("http") && uri.host().is_some()).then_some(Self(intercept))
    }

    /// Without user and password: for words, and for a file that everybody may read.
    pub fn address(&self) -> String {
        let uri = self.0.uri();
        format!("http://{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80))
    }

    /// Whether it wants a password, which was named with it.
    pub fn has_password(&self) -> bool {
        self.authorization().is_some()
    }

    /// What its password makes of the header `Proxy-Authorization`: a secret.
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.0.basic_auth()
    }

    /// A connection to the host and port of `target` through the proxy.
    pub async fn connect(&self, target: &Uri) -> Result<TcpStream, Blocked> {
        let target =
            over_http(target).ok_or_else(|| Blocked::Refused("the target has no host".to_owned()))?;
        let mut tunnel = Tunnel::new(self.0.uri().clone(), Dialer);
        if let Some(authorization) = self.authorization() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        tunnel.call(target).await.map(TokioIo::into_inner).map_err(|error| {
            // Only what came of the network below has a cause; all else the proxy has said.
            let Some(mut cause) = error.source() else { return Blocked::Refused(error.to_string()) };
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            Blocked::Unreachable(cause.to_string())
        })
    }
}

impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        (self.0.uri(), self.authorization()) == (other.0.uri(), other.authorization())
    }
}

/// `target` as what a proxy knows: a WebSocket begins as HTTP. Its port is always said.
fn over_http(target: &Uri) -> Option<Uri> {
    let (scheme, usual) = match target.scheme_str()? {
        "wss" | "https" => ("https", 443),
        "ws" | "http" => ("http", 80),
        _ => return None,
    };
    let authority = format!("{}:{}", target.host()?, target.port_u16().unwrap_or(usual));
    Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build().ok()
}

/// The environment's proxy to `target` as its variable names it, user and password included, and as
/// it is used.
pub fn url_from_environment(target: &Uri) -> Result<Option<(String, Proxy)>, NoProxy> {
    Proxy::found_in(&|name| std::env::var(name).ok(), target)
}

/// The entries of `NO_PROXY` that stand for nothing, so that people can be told.
pub fn ignored_exceptions() -> Vec<String> {
    exceptions(&|name| std::env::var(name).ok()).ignored()
}

fn exceptions(variables: Variables<'_>) -> Exceptions {
    let text = ["no_proxy", "NO_PROXY"].into_iter().find_map(variables).unwrap_or_default();
    Exceptions::parse(unquoted(&text))
}

/// Without blanks and the quotes that a file of variables leaves around a value.
fn unquoted(text: &str) -> &str {
    text.trim().trim_matches(['"', '\'']).trim()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn found(variables: &[(&str, &str)], target: &str) -> Result<Option<String>, NoProxy> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let found = Proxy::found_in(&variable, &target.parse().unwrap())?;
        Ok(found.map(|(_, proxy)| proxy.address()))
    }

    #[test]
    fn variables_are_read_as_people_write_them() {
        let proxy = Ok(Some("http://proxy.example:3128".to_owned()));
        let target = "wss://aiwm.example/ws/node";
        for variables in [
            [("https_proxy", "http://proxy.example:3128"), ("no_proxy", "")],
            [("HTTPS_PROXY", "\"http://proxy.example:3128\""), ("NO_PROXY", "other.example")],
            [("ALL_PROXY", " 'proxy.example:3128' "), ("https_proxy", "")],
        ] {
            assert_eq!(found(&variables, target), proxy, "{variables:?}");
        }
        assert_eq!(found(&[("HTTP_PROXY", "http://proxy.example:3128")], target), Ok(None));
        assert!(found(&[("HTTPS_PROXY", "socks5://proxy.example")], target).is_err(), "not silently none");
        let cgi = [("HTTP_PROXY", "http://evil.example"), ("REQUEST_METHOD", "GET")];
        assert_eq!(found(&cgi, "ws://aiwm.example"), Ok(None));
    }

    #[test]
    fn a_proxy_leads_everywhere_but_to_this_machine_and_to_what_is_excepted() {
        let proxy = Some("http://proxy.example:3128".to_owned());
        let through = |except: &str, target: &str| {
            found(&[("https_proxy", "http://proxy.example:3128"), ("NO_PROXY", except)], target).unwrap()
        };
        for target in ["https://aiwm.example/x", "wss://aiwm.example/ws/node", "wss://10.0.0.7:3305"] {
            assert_eq!(through("", target), proxy, "{target}");
        }
        for target in [
            "https://localhost:1",
            "wss://LOCALHOST:1",
            "wss://127.0.0.1:3305",
            "wss://[::1]:3305",
            "ws://aiwm.example",
        ] {
            assert_eq!(through("", target), None, "{target}");
        }
        assert_eq!(through("example", "wss://aiwm.example"), None);
        assert_eq!(through("10.0.0.0/8", "wss://10.0.0.7:3305"), None);
        assert_eq!(through("other.example", "wss://aiwm.example"), proxy);
    }

    #[test]
    fn only_http_proxies_are_proxies_and_no_password_is_shown() {
        for text in ["socks5://proxy:1080", "https://proxy:3128", "ftp://proxy", "", "http://"] {
            assert!(Proxy::named(text, "x").is_err(), "{text}");
        }
        let proxy = Proxy::named("http://me:se%40cret@proxy.example:3128", "x").unwrap();
        assert!(proxy.has_password() && !format!("{proxy:?}{}", proxy.address()).contains("cret"));
        assert_eq!(Proxy::named("proxy.example:3128", "x").unwrap().address(), "http://proxy.example:3128");
        assert!(!Proxy::named("http://proxy.example", "x").unwrap().has_password());
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_by_name_and_port_and_carries_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let named = format!("http://me:word@{}", listener.local_addr().unwrap());
        let proxy = tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(peer.read_u8().await.unwrap());
            }
            peer.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
            // As in TLS and HTTP, whoever connects speaks first.
            assert_eq!(peer.read_u8().await.unwrap(), b'?');
            peer.write_all(b"hello").await.unwrap();
            String::from_utf8(head).unwrap()
        });
        let target = "wss://aiwm.example/ws/node".parse().unwrap();
        let mut stream = Proxy::named(&named, "x").unwrap().connect(&target).await.unwrap();
        stream.write_u8(b'?').await.unwrap();
        let mut said = [0; 5];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"hello");
        let head = proxy.await.unwrap().to_ascii_lowercase();
        assert!(head.starts_with("connect aiwm.example:443 http/1.1\r\n"), "{head}");
        assert!(head.contains("proxy-authorization: basic "), "{head}");
    }
}
