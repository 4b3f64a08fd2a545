//! Which settings would show secrets to others: by sending them to other machines in the clear, or in files
//! that every user may read.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use reqwest::Url;

use super::Config;
use crate::loopback::is_this_machine;

/// Whether every user of this machine may read a file. Its folder may keep them away, but a copy of
/// it would not.
pub(crate) fn is_exposed(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

impl Config {
    /// The first setting that is plain HTTP to another machine, unless that is allowed: tokens go
    /// to `PUBLIC_URL`, events and the service token to `NOTI_SERVICE_URL`, figures and keys to
    /// `OTLP_ENDPOINT`, and installers refuse a plain `RELEASE_BASE_URL`.
    pub(crate) fn in_the_clear(&self) -> Option<(&'static str, &Url)> {
        let addresses = [
            ("PUBLIC_URL", self.public_url.as_ref()),
            ("RELEASE_BASE_URL", self.release_base_url.as_ref()),
            ("NOTI_SERVICE_URL", self.noti_service_url.as_ref()),
            ("OTLP_ENDPOINT", self.otlp.as_ref().map(|otlp| &otlp.url)),
        ];
        let exposed = |url: &&Url| !self.insecure_http && url.scheme() != "https" && !is_this_machine(url);
        addresses.into_iter().find_map(|(name, url)| Some((name, url.filter(exposed)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_alone_unless_it_is_allowed() {
        let good = [
            "https://192.0.2.1",
            "https://noti.example",
            "http://localhost:8080/noti",
            "http://127.0.0.1",
            "http://127.1.2.3:80",
            "http://0x7f.1",
            "http://[::1]:3305",
            "http://[::ffff:127.0.0.1]",
        ];
        let exposed = [
            "http://192.0.2.1",
            "http://noti:8080",
            "http://localhost.evil",
            "http://localhost.",
            "http://evil.localhost",
            "http://localhost@evil.example",
            "http://127.0.0.1.nip.io",
            "http://0.0.0.0",
            "http://[::]",
            "http://[::ffff:192.0.2.1]",
            "http://10.0.0.1",
        ];
        let settings: [fn(&mut Config) -> &mut Option<Url>; 3] = [
            |config| &mut config.public_url,
            |config| &mut config.release_base_url,
            |config| &mut config.noti_service_url,
        ];
        for (setting, name) in settings.iter().zip(["PUBLIC_URL", "RELEASE_BASE_URL", "NOTI_SERVICE_URL"]) {
            let mut config = Config::new("data");
            for url in good {
                *setting(&mut config) = Some(url.parse().unwrap());
                assert_eq!(config.in_the_clear(), None, "{url}");
            }
            for url in exposed {
                *setting(&mut config) = Some(url.parse().unwrap());
                config.insecure_http = false;
                assert_eq!(config.in_the_clear().map(|(name, _)| name), Some(name), "{url}");
                config.insecure_http = true;
                assert_eq!(config.in_the_clear(), None, "{url}");
            }
        }
    }
}
