//! Which proxy leads to the controller, and what the daemon must be told of it: a service sees none of the variables of a login. Whoever is
//! nearest counts: the command line, then the configuration, then the environment.

use std::fmt;

use aio_host::{
    config::ConfigFile,
    layout::Layout,
    proxy::{NoProxy, Proxy},
};
use aio_protocol::error_code::ErrorCode;
use http::Uri;

use crate::failure::Failure;

/// The way to the controller.
#[derive(Clone, Default)]
pub(crate) struct Way {
    /// The proxy that somebody named, for the HTTP client; those of the environment it finds by itself.
    pub(crate) named: Option<String>,
    /// What leads to the controller, whoever said so.
    pub(crate) proxy: Option<Proxy>,
    /// Who said so, for words.
    source: &'static str,
    /// What the daemon's configuration is to say, where it does not yet.
    pub(crate) to_configure: Option<String>,
}

/// A proxy's password stands in its name.
impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

impl Way {
    /// The way to `endpoint` where the command names the proxy `given`.
    pub(crate) fn to(endpoint: &str, given: Option<&str>, layout: &Layout) -> Result<Self, Failure> {
        // A configuration that cannot be read is refused later on, by name.
        let configured = ConfigFile::read(&layout.config()).ok().and_then(|file| file.proxy);
        if let Some(text) = given.or(configured.as_deref()) {
            let source = if given.is_some() { "--proxy" } else { "config.toml" };
            let proxy = Proxy::named(text, source).map_err(unusable)?;
            let to_configure = match given {
                Some(text) if configured.as_deref() != Some(text) => Some(presentable(&proxy)?),
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
    use std::fs;

    use super::*;

    fn way(given: Option<&str>, configuration: &str) -> Result<Way, ErrorCode> {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        fs::create_dir_all(layout.config_dir()).unwrap();
        fs::write(layout.config(), configuration).unwrap();
        Way::to("wss://aiwm.example/ws/node", given, &layout).map_err(|failure| failure.code)
    }

    #[test]
    fn a_proxy_that_is_named_is_written_for_the_daemon_once() {
        let given = way(Some("http://proxy.example:3128"), "").unwrap();
        assert_eq!(given.to_configure.as_deref(), Some("http://proxy.example:3128"));
        assert_eq!(given.in_words().unwrap(), "http://proxy.example:3128 (from --proxy)");
        let configured = "proxy = \"http://proxy.example:3128\"\n";
        assert_eq!(way(Some("http://proxy.example:3128"), configured).unwrap().to_configure, None);
        let again = way(None, configured).unwrap();
        assert_eq!(again.named.as_deref(), Some("http://proxy.example:3128"));
        assert_eq!(again.to_configure, None);
    }

    #[test]
    fn a_password_is_never_written_where_everybody_reads() {
        let named = "http://me:secret@proxy.example:3128";
        assert_eq!(way(Some(named), "").unwrap_err(), ErrorCode::ConfigInvalid);
        let configured = format!("proxy = \"{named}\"\n");
        let by_hand = way(None, &configured).unwrap();
        assert_eq!(by_hand.named.as_deref(), Some(named));
        assert!(!format!("{by_hand:?}").contains("secret"));
        assert_eq!(way(Some("socks5://proxy.example"), "").unwrap_err(), ErrorCode::ConfigInvalid);
    }
}
