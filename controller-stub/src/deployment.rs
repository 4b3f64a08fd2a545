//! What this controller tells nodes of itself: its addresses and its releases. `serve` keeps it in the
//! database, so that `node add` says the same while the server runs.

use std::{net::SocketAddr, path::PathBuf};

use aio_protocol::{release::ReleaseVersion, wire::GATEWAY_PATH};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, Published},
    loopback::is_this_machine,
    releases::ReleaseFile,
    tls,
};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Deployment {
    /// The HTTP base, without a slash at its end.
    pub api: String,
    /// Whether that is an address for other machines, because somebody gave it.
    #[serde(default)]
    pub public: bool,
    /// Whether somebody else must be ending TLS before this controller, or nobody does: then no
    /// request is known to come from this machine.
    #[serde(default)]
    pub proxied: bool,
    release_base: String,
    docs_base: String,
    pub default_daemon_version: ReleaseVersion,
    /// The one that tokens carry.
    pub release_public_key: Option<String>,
    /// All that releases may be signed with, that one first.
    #[serde(default)]
    release_public_keys: Vec<String>,
    pub releases: Option<PathBuf>,
    pub checksums: Published,
    /// The authority that nodes trust this controller by, where it is the controller's own.
    #[serde(default)]
    pub authority: Option<tls::Published>,
}

impl Deployment {
    /// Where the tree of releases is.
    pub(crate) fn release_base(&self) -> &str {
        &self.release_base
    }

    /// The deployment that `config` describes, listening on `listening`.
    pub(crate) fn new(config: &Config, listening: SocketAddr, authority: Option<tls::Published>) -> Self {
        let own = || loopback_url(listening, config.serves_tls());
        let api = config.public_url.as_ref().map_or_else(own, base);
        Self {
            release_base: config.release_base_url.as_ref().map_or_else(|| format!("{api}/releases"), base),
            docs_base: base(&config.docs_base_url),
            default_daemon_version: config.default_daemon_version.clone(),
            release_public_key: config.release_public_keys.first().cloned(),
            release_public_keys: config.release_public_keys.clone(),
            releases: config.releases.clone(),
            checksums: config.checksums.clone(),
            authority,
            public: config.public_url.is_some(),
            proxied: !config.serves_tls()
                && config.public_url.as_ref().is_some_and(|url| !is_this_machine(url)),
            api,
        }
    }

    /// The keys that releases may be signed with; an older version of this controller has kept one.
    pub(crate) fn release_public_keys(&self) -> Vec<String> {
        match self.release_public_keys.as_slice() {
            [] => self.release_public_key.iter().cloned().collect(),
            keys => keys.to_vec(),
        }
    }

    /// The WebSocket endpoint that nodes connect to.
    pub(crate) fn gateway(&self) -> String {
        // `http` becomes `ws`, `https` becomes `wss`.
        let rest = self.api.strip_prefix("http").unwrap_or(&self.api);
        format!("ws{rest}{GATEWAY_PATH}")
    }

    /// Where nodes download a file of a release.
    pub(crate) fn download_url(&self, version: &ReleaseVersion, file: ReleaseFile) -> String {
        format!("{}/{version}/{file}", self.release_base)
    }

    /// The certificate (PEM) to trust for release downloads, where the controller serves them itself.
    pub(crate) fn download_authority(&self) -> Option<&str> {
        let own = self.release_base.strip_prefix(&self.api).is_some_and(|path| path.starts_with('/'));
        self.authority.as_ref().filter(|_| own).map(|authority| authority.pem.as_str())
    }

    /// The installation guide.
    pub(crate) fn documentation_url(&self) -> String {
        format!("{}/aio-worker/installation", self.docs_base)
    }
}

fn base(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// The address by which this machine reaches a server that listens on `listening`.
pub(crate) fn loopback_url(listening: SocketAddr, tls: bool) -> String {
    let mut address = listening;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => [127, 0, 0, 1].into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{}://{address}", if tls { "https" } else { "http" })
}

#[cfg(test)]
mod tests {
    use aio_protocol::release::Platform;

    use super::*;

    fn deployment(public_url: Option<&str>) -> Deployment {
        let mut config = Config::new("data");
        config.public_url = public_url.map(|url| url.parse().unwrap());
        Deployment::new(&config, "0.0.0.0:3305".parse().unwrap(), None)
    }

    #[test]
    fn endpoints_follow_the_public_url_and_its_scheme() {
        let behind_a_proxy = deployment(Some("https://aiwm.example/api/"));
        assert_eq!(behind_a_proxy.gateway(), "wss://aiwm.example/api/ws/node");
        assert_eq!(
            behind_a_proxy
                .download_url(&"v1.0.0".parse().unwrap(), ReleaseFile::Daemon(Platform::LinuxAmd64)),
            "https://aiwm.example/api/releases/v1.0.0/linux-amd64"
        );
        assert_eq!(behind_a_proxy.documentation_url(), "https://docs.x-or.cloud/aio-worker/installation");
    }

    #[test]
    fn without_a_public_url_the_controller_is_on_this_machine() {
        assert_eq!(deployment(None).gateway(), "ws://127.0.0.1:3305/ws/node");
        assert_eq!(loopback_url("[::]:80".parse().unwrap(), false), "http://[::1]:80");
        assert_eq!(loopback_url("10.0.0.1:80".parse().unwrap(), true), "https://10.0.0.1:80");
    }
}
