//! Which web pages may ask this controller: those of its own addresses, and those that are listed.

use std::net::SocketAddr;

use reqwest::Url;

/// What this machine is called in its own pages' addresses.
const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

pub(crate) struct Origins {
    listed: Vec<String>,
    /// The port of this controller's own address under each of this machine's own names, and its scheme.
    own: (String, u16),
    /// Only this machine reaches the controller, so its pages may ask whatever their port is.
    local: bool,
}

impl Origins {
    /// `api` is the address that this controller is reached by, `listening` where it listens.
    pub(crate) fn new(api: &str, listening: SocketAddr, tls: bool, mut listed: Vec<String>) -> Self {
        let api = Url::parse(api).ok();
        listed.extend(api.as_ref().map(|url| url.origin().ascii_serialization()));
        let own = (if tls { "https" } else { "http" }.to_owned(), listening.port());
        let local = api.is_none_or(|url| is_loopback(&url)) && listening.ip().is_loopback();
        Self { listed, own, local }
    }

    /// Whether pages of this origin may ask.
    pub(crate) fn contain(&self, origin: &str) -> bool {
        self.listed.iter().any(|listed| listed == origin)
            || Url::parse(origin).is_ok_and(|url| self.is_own(origin, &url))
    }

    fn is_own(&self, origin: &str, url: &Url) -> bool {
        let (scheme, port) = &self.own;
        // As browsers write it: nothing behind the port.
        url.origin().ascii_serialization() == origin
            && is_loopback(url)
            && (self.local || (url.scheme() == scheme && url.port_or_known_default() == Some(*port)))
    }
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| LOOPBACK_HOSTS.contains(&host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_s_own_names_are_no_foreign_origins() {
        let listed = vec!["https://dash.example".to_owned()];
        let at =
            |api: &str, listening: &str| Origins::new(api, listening.parse().unwrap(), false, listed.clone());
        let local = at("http://127.0.0.1:3305", "127.0.0.1:3305");
        let public = at("https://aiwm.example/base", "0.0.0.0:3305");
        let proxied = at("https://aiwm.example", "127.0.0.1:3305");
        for origin in
            ["http://localhost:3305", "http://127.0.0.1:3305", "http://[::1]:3305", "https://dash.example"]
        {
            assert!([&local, &public, &proxied].iter().all(|it| it.contain(origin)), "{origin}");
        }
        for origin in ["http://localhost", "https://localhost:8443", "http://127.0.0.1:5173"] {
            assert!(local.contain(origin) && !public.contain(origin) && !proxied.contain(origin), "{origin}");
        }
        assert!(public.contain("https://aiwm.example") && !local.contain("https://aiwm.example"));
        for origin in [
            "null",
            "",
            "http://localhost.evil:3305",
            "http://evil.localhost:3305",
            "http://localhost:3305/",
            "http://user@localhost:3305",
            "http://127.0.0.2:3305",
            "https://evil.example",
            "file://localhost",
            "http://dash.example",
            "HTTP://LOCALHOST:3305",
        ] {
            assert!(![&local, &public, &proxied].iter().any(|it| it.contain(origin)), "{origin}");
        }
    }
}
