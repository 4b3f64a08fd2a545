//! The route to the controller: its address, whom to trust there, and which proxy leads to it. Says
//! what the daemon must be told of the proxy: a service sees none of the variables of a login.
//! Whoever is nearest counts: the command line, then the configuration, then the environment.

use std::{fmt, path::PathBuf, time::Duration};

use aio_host::{
    config::ConfigFile,
    layout::Layout,
    proxy::{NoProxy, Proxy},
    tls::{PinnedAuthority, Trust},
};
use aio_protocol::{claims::NodeClaims, error_code::ErrorCode};
use http::Uri;
use reqwest::{Client, Url};

use super::http as requests;
use crate::failure::Failure;

/// What an operator says of the route, beside the token.
#[derive(Debug, Clone, Default)]
pub(crate) struct RouteOptions {
    /// Another WebSocket endpoint than the token's.
    pub(crate) endpoint: Option<String>,
    /// Authorities (PEM) to trust beside the operating system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// A proxy.
    pub(crate) proxy: Option<String>,
    /// Whether plain `http` to other machines is allowed.
    pub(crate) insecure_http: bool,
    /// After how long without a byte a transfer is given up, if not after the usual time.
    pub(crate) stall_timeout: Option<Duration>,
}

/// The route to the controller.
#[derive(Debug)]
pub(crate) struct Route {
    /// The base of the controller's HTTP API.
    pub(crate) base: Url,
    /// Whom to trust: the authority that the token names for the controller, and for all others the
    /// operating system's and the operator's own, those of an earlier installation included.
    pub(crate) trust: Trust,
    /// The proxy, if one is needed.
    pub(crate) proxy: ProxyChoice,
    insecure_http: bool,
    stall_timeout: Option<Duration>,
}

impl Route {
    /// The route to the controller that a token with these claims names.
    pub(crate) fn to_controller(
        claims: &NodeClaims,
        options: &RouteOptions,
        layout: &Layout,
    ) -> Result<Self, Failure> {
        let RouteOptions { insecure_http, stall_timeout, .. } = *options;
        let base = requests::parse(&claims.api, "the controller's address in the token", insecure_http)?;
        // A configuration that cannot be read is refused later on, by name.
        let configured = ConfigFile::read(&layout.config()).unwrap_or_default();
        let hosts = base.host_str().map(str::to_owned).into_iter().collect();
        let pin = claims.ca.clone().map(|fingerprint| PinnedAuthority { fingerprint, hosts });
        let trust = Trust { pin, ca_file: options.ca_file.clone().or(configured.ca_file) };
        let endpoint = options.endpoint.as_deref().unwrap_or(&claims.ctl);
        let proxy = ProxyChoice::to(endpoint, options.proxy.as_deref(), configured.proxy.as_deref())?;
        Ok(Self { base, trust, proxy, insecure_http, stall_timeout })
    }

    /// The base as text, without a slash at its end.
    pub(crate) fn base_text(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// The HTTP client that takes it.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let proxy = self.proxy.named.as_deref();
        requests::client(&self.base, &self.trust, proxy, self.insecure_http, self.stall_timeout)
    }
}

/// Which proxy leads to the controller, and who said so.
#[derive(Clone, Default)]
pub(crate) struct ProxyChoice {
    /// The proxy that somebody named, for the HTTP client; those of the environment it finds by
    /// itself.
    named: Option<String>,
    /// What leads to the controller, whoever said so.
    pub(crate) proxy: Option<Proxy>,
    /// Who said so, for words.
    source: &'static str,
    /// What the daemon's configuration is to say, where it does not yet.
    pub(crate) to_configure: Option<String>,
}

/// A proxy's password stands in its name.
impl fmt::Debug for ProxyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyChoice").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

impl ProxyChoice {
    /// The proxy to `endpoint`, where the command names `given` and the configuration `configured`.
    fn to(endpoint: &str, given: Option<&str>, configured: Option<&str>) -> Result<Self, Failure> {
        if let Some(text) = given.or(configured) {
            let source = if given.is_some() { "--proxy" } else { "config.toml" };
            let proxy = Proxy::named(text, source).map_err(unusable)?;
            let to_configure = match given {
                Some(text) if configured != Some(text) => Some(presentable(&proxy)?),
                _ => None,
            };
            return Ok(Self { named: Some(text.to_owned()), proxy: Some(proxy), source, to_configure });
        }
        let endpoint: Uri = endpoint.parse().map_err(|error| {
            Failure::new(ErrorCode::ControllerInvalid, format!("`{endpoint}` is not a URL: {error}"))
        })?;
        let Some(proxy) = Proxy::from_environment(&endpoint).map_err(unusable)? else {
            return Ok(Self::default());
        };
        let to_configure = Some(presentable(&proxy)?);
        Ok(Self { named: None, proxy: Some(proxy), source: "the environment", to_configure })
    }

    /// The proxy and who named it.
    pub(crate) fn in_words(&self) -> Option<String> {
        self.proxy.as_ref().map(|proxy| format!("{} (from {})", proxy.address(), self.source))
    }
}

/// What may stand in a file that everybody may read.
fn presentable(proxy: &Proxy) -> Result<String, Failure> {
    if proxy.has_password() {
        let message = format!(
            "the proxy {} is named with a password, and config.toml can be read by everybody: write `proxy = …` into /etc/aio-worker/config.toml \
             yourself, for root and the group aio-worker alone",
            proxy.address()
        );
        return Err(Failure::new(ErrorCode::ConfigInvalid, message));
    }
    Ok(proxy.address())
}

fn unusable(error: NoProxy) -> Failure {
    Failure::new(ErrorCode::ConfigInvalid, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(given: Option<&str>, configured: Option<&str>) -> Result<ProxyChoice, ErrorCode> {
        ProxyChoice::to("wss://aiwm.example/ws/node", given, configured).map_err(|failure| failure.code)
    }

    #[test]
    fn a_proxy_that_is_named_is_written_for_the_daemon_once() {
        let given = choice(Some("http://proxy.example:3128"), None).unwrap();
        assert_eq!(given.to_configure.as_deref(), Some("http://proxy.example:3128"));
        assert_eq!(given.in_words().unwrap(), "http://proxy.example:3128 (from --proxy)");
        let configured = Some("http://proxy.example:3128");
        assert_eq!(choice(Some("http://proxy.example:3128"), configured).unwrap().to_configure, None);
        let again = choice(None, configured).unwrap();
        assert_eq!(again.named.as_deref(), Some("http://proxy.example:3128"));
        assert_eq!(again.to_configure, None);
    }

    #[test]
    fn a_password_is_never_written_where_everybody_reads() {
        let named = "http://me:secret@proxy.example:3128";
        assert_eq!(choice(Some(named), None).unwrap_err(), ErrorCode::ConfigInvalid);
        let by_hand = choice(None, Some(named)).unwrap();
        assert_eq!(by_hand.named.as_deref(), Some(named));
        assert!(!format!("{by_hand:?}").contains("secret"));
        assert_eq!(choice(Some("socks5://proxy.example"), None).unwrap_err(), ErrorCode::ConfigInvalid);
    }
}
