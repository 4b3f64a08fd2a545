//! What was set and where: a file, over it the environment, over it the flags. Every variable is also a key of the file, in lower
//! case. Decides nothing about values; `Config::check` does.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Deserializer};

use super::{ConfigError, Published};

/// The variables that the controller reads from its environment. `.env.example` documents each.
pub const VARIABLES: &[&str] = &[
    "PUBLIC_URL",
    "DATABASE_URL",
    "HEARTBEAT_TIMEOUT",
    "UPGRADES_PER_SECOND",
    "DEFAULT_DAEMON_VERSION",
    "RELEASE_BASE_URL",
    "RELEASE_PUBLIC_KEY",
    "DOCS_BASE_URL",
    "NOTI_SERVICE_URL",
    "NOTI_SERVICE_TOKEN",
    "NOTI_WEBHOOK_SECRET",
    "NOTI_CA_FILE",
    "NOTI_CLIENT_CERT_FILE",
    "NOTI_CLIENT_KEY_FILE",
    "NOTI_BREAKER_PAUSE",
    "SHUTDOWN_LAME_DUCK",
    "EVENT_RETENTION",
    "HISTORY_RETENTION",
    "DEAD_LETTER_RETENTION",
    "INACTIVE_NODE_RETENTION",
    "DASHBOARD_ORIGINS",
    "METRICS_TOKEN",
    "JWT_SECRET",
    "JWT_PRIVATE_KEY_FILE",
    "JWT_PUBLIC_KEY_FILE",
    "API_REQUESTS_PER_SECOND",
    "TRUSTED_PROXIES",
    "TLS_CERT",
    "TLS_KEY",
    "TLS_SELF_SIGNED",
    "INSECURE_HTTP",
];

/// What was set. It holds secrets, so it cannot be printed.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = ".env.example and `Config` document each")]
pub struct Settings {
    pub listen: Option<String>,
    pub releases: Option<String>,
    pub public_url: Option<String>,
    pub database_url: Option<String>,
    pub heartbeat_timeout: Option<String>,
    pub upgrades_per_second: Option<String>,
    pub default_daemon_version: Option<String>,
    pub release_base_url: Option<String>,
    pub release_public_key: Option<String>,
    pub docs_base_url: Option<String>,
    pub noti_service_url: Option<String>,
    pub noti_service_token: Option<String>,
    pub noti_webhook_secret: Option<String>,
    pub noti_ca_file: Option<String>,
    pub noti_client_cert_file: Option<String>,
    pub noti_client_key_file: Option<String>,
    pub noti_breaker_pause: Option<String>,
    pub shutdown_lame_duck: Option<String>,
    pub event_retention: Option<String>,
    pub history_retention: Option<String>,
    pub dead_letter_retention: Option<String>,
    pub inactive_node_retention: Option<String>,
    pub dashboard_origins: Option<String>,
    pub metrics_token: Option<String>,
    pub jwt_secret: Option<String>,
    pub jwt_private_key_file: Option<String>,
    pub jwt_public_key_file: Option<String>,
    pub api_requests_per_second: Option<String>,
    pub trusted_proxies: Option<String>,
    pub tls_cert: Option<String>,
    pub tls_key: Option<String>,
    #[serde(deserialize_with = "switch")]
    pub tls_self_signed: Option<String>,
    #[serde(deserialize_with = "switch")]
    pub insecure_http: Option<String>,
    /// By version and file name: `[checksums."v1.0.0"]`, `linux-amd64 = { checksum = "sha256:…", size = 123 }`.
    pub checksums: Published,
}

impl Settings {
    /// Reads a TOML file.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Invalid { path: path.to_owned(), source: Box::new(source) })
    }

    /// Reads `VARIABLES` through `variable`; an empty one is not set.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set: BTreeMap<_, _> = VARIABLES
            .iter()
            .filter_map(|name| Some((*name, variable(name).filter(|value| !value.is_empty())?)))
            .collect();
        let value = |name| set.get(name).cloned();
        Self {
            listen: None,
            releases: None,
            public_url: value("PUBLIC_URL"),
            database_url: value("DATABASE_URL"),
            heartbeat_timeout: value("HEARTBEAT_TIMEOUT"),
            upgrades_per_second: value("UPGRADES_PER_SECOND"),
            default_daemon_version: value("DEFAULT_DAEMON_VERSION"),
            release_base_url: value("RELEASE_BASE_URL"),
            release_public_key: value("RELEASE_PUBLIC_KEY"),
            docs_base_url: value("DOCS_BASE_URL"),
            noti_service_url: value("NOTI_SERVICE_URL"),
            noti_service_token: value("NOTI_SERVICE_TOKEN"),
            noti_webhook_secret: value("NOTI_WEBHOOK_SECRET"),
            noti_ca_file: value("NOTI_CA_FILE"),
            noti_client_cert_file: value("NOTI_CLIENT_CERT_FILE"),
            noti_client_key_file: value("NOTI_CLIENT_KEY_FILE"),
            noti_breaker_pause: value("NOTI_BREAKER_PAUSE"),
            shutdown_lame_duck: value("SHUTDOWN_LAME_DUCK"),
            event_retention: value("EVENT_RETENTION"),
            history_retention: value("HISTORY_RETENTION"),
            dead_letter_retention: value("DEAD_LETTER_RETENTION"),
            inactive_node_retention: value("INACTIVE_NODE_RETENTION"),
            dashboard_origins: value("DASHBOARD_ORIGINS"),
            metrics_token: value("METRICS_TOKEN"),
            jwt_secret: value("JWT_SECRET"),
            jwt_private_key_file: value("JWT_PRIVATE_KEY_FILE"),
            jwt_public_key_file: value("JWT_PUBLIC_KEY_FILE"),
            api_requests_per_second: value("API_REQUESTS_PER_SECOND"),
            trusted_proxies: value("TRUSTED_PROXIES"),
            tls_cert: value("TLS_CERT"),
            tls_key: value("TLS_KEY"),
            tls_self_signed: value("TLS_SELF_SIGNED"),
            insecure_http: value("INSECURE_HTTP"),
            checksums: Published::new(),
        }
    }

    /// These settings, and `lower`'s where these have none.
    pub fn over(self, lower: Self) -> Self {
        let mut checksums = lower.checksums;
        checksums.extend(self.checksums);
        Self {
            listen: self.listen.or(lower.listen),
            releases: self.releases.or(lower.releases),
            public_url: self.public_url.or(lower.public_url),
            database_url: self.database_url.or(lower.database_url),
            heartbeat_timeout: self.heartbeat_timeout.or(lower.heartbeat_timeout),
            upgrades_per_second: self.upgrades_per_second.or(lower.upgrades_per_second),
            default_daemon_version: self.default_daemon_version.or(lower.default_daemon_version),
            release_base_url: self.release_base_url.or(lower.release_base_url),
            release_public_key: self.release_public_key.or(lower.release_public_key),
            docs_base_url: self.docs_base_url.or(lower.docs_base_url),
            noti_service_url: self.noti_service_url.or(lower.noti_service_url),
            noti_service_token: self.noti_service_token.or(lower.noti_service_token),
            noti_webhook_secret: self.noti_webhook_secret.or(lower.noti_webhook_secret),
            noti_ca_file: self.noti_ca_file.or(lower.noti_ca_file),
            noti_client_cert_file: self.noti_client_cert_file.or(lower.noti_client_cert_file),
            noti_client_key_file: self.noti_client_key_file.or(lower.noti_client_key_file),
            noti_breaker_pause: self.noti_breaker_pause.or(lower.noti_breaker_pause),
            shutdown_lame_duck: self.shutdown_lame_duck.or(lower.shutdown_lame_duck),
            event_retention: self.event_retention.or(lower.event_retention),
            history_retention: self.history_retention.or(lower.history_retention),
            dead_letter_retention: self.dead_letter_retention.or(lower.dead_letter_retention),
            inactive_node_retention: self.inactive_node_retention.or(lower.inactive_node_retention),
            dashboard_origins: self.dashboard_origins.or(lower.dashboard_origins),
            metrics_token: self.metrics_token.or(lower.metrics_token),
            jwt_secret: self.jwt_secret.or(lower.jwt_secret),
            jwt_private_key_file: self.jwt_private_key_file.or(lower.jwt_private_key_file),
            jwt_public_key_file: self.jwt_public_key_file.or(lower.jwt_public_key_file),
            api_requests_per_second: self.api_requests_per_second.or(lower.api_requests_per_second),
            trusted_proxies: self.trusted_proxies.or(lower.trusted_proxies),
            tls_cert: self.tls_cert.or(lower.tls_cert),
            tls_key: self.tls_key.or(lower.tls_key),
            tls_self_signed: self.tls_self_signed.or(lower.tls_self_signed),
            insecure_http: self.insecure_http.or(lower.insecure_http),
            checksums,
        }
    }
}

/// In a file `true` is written as people write it; in the environment everything is text.
fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Switch {
        Bool(bool),
        Text(String),
    }
    Ok(Some(match Switch::deserialize(deserializer)? {
        Switch::Bool(on) => on.to_string(),
        Switch::Text(text) => text,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::releases::ReleaseFile;

    /// `NAME=value` lines of the documented sample, those that are commented out included.
    fn documented() -> BTreeMap<&'static str, &'static str> {
        include_str!("../../../.env.example")
            .lines()
            .filter_map(|line| line.trim_start_matches('#').split_once('='))
            .filter(|(name, _)| !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
            .collect()
    }

    #[test]
    fn the_sample_documents_exactly_the_variables_that_are_read() {
        let mut known = VARIABLES.to_vec();
        known.sort_unstable();
        assert_eq!(documented().into_keys().collect::<Vec<_>>(), known);
    }

    #[test]
    fn the_samples_values_are_valid() {
        let documented = documented();
        let settings =
            Settings::from_environment(|name| documented.get(name).map(|value| (*value).to_owned()));
        super::super::Config::check("data", settings).unwrap();
    }

    #[test]
    fn every_variable_is_a_key_of_the_file_and_reaches_the_same_setting() {
        for name in VARIABLES {
            let line = format!("{} = \"value\"", name.to_lowercase());
            let from_file: Settings = toml::from_str(&line).unwrap();
            let from_environment =
                Settings::from_environment(|asked| (asked == *name).then(|| "value".to_owned()));
            assert!(from_file == from_environment && from_file != Settings::default(), "{name}");
            assert!(from_file.clone().over(Settings::default()) == from_file, "{name}");
            assert!(Settings::default().over(from_file.clone()) == from_file, "{name}");
        }
    }

    #[test]
    fn a_switch_of_the_file_is_true_or_a_text() {
        for line in ["tls_self_signed = true", "tls_self_signed = \"true\""] {
            assert_eq!(toml::from_str::<Settings>(line).unwrap().tls_self_signed.as_deref(), Some("true"));
        }
        assert!(toml::from_str::<Settings>("insecure_http = 1").is_err());
    }

    #[test]
    fn the_environment_overrules_the_file_and_an_empty_variable_is_not_set() {
        let file: Settings = toml::from_str("public_url = \"http://file\"\nlisten = \"[::1]:1\"").unwrap();
        let env = Settings::from_environment(|name| match name {
            "PUBLIC_URL" => Some("http://env".to_owned()),
            "JWT_SECRET" => Some(String::new()),
            _ => None,
        });
        let merged = env.over(file);
        assert_eq!(merged.public_url.as_deref(), Some("http://env"));
        assert_eq!((merged.listen.as_deref(), merged.jwt_secret), (Some("[::1]:1"), None));
    }

    #[test]
    fn an_unknown_key_and_an_unknown_release_file_are_refused() {
        assert!(toml::from_str::<Settings>("pubic_url = \"http://x\"").is_err());
        let file = format!("{{ checksum = \"sha256:{}\", size = 7 }}", "a".repeat(64));
        let good: Settings =
            toml::from_str(&format!("[checksums.\"v1.0.0\"]\n\"aio-installer-linux-amd64\" = {file}"))
                .unwrap();
        let (version, files) = good.checksums.first_key_value().unwrap();
        assert_eq!(version.to_string(), "v1.0.0");
        assert!(files.contains_key(&"aio-installer-linux-amd64".parse::<ReleaseFile>().unwrap()));
        assert!(toml::from_str::<Settings>(&format!("[checksums.\"v1.0.0\"]\nlinux = {file}")).is_err());
        assert!(toml::from_str::<Settings>(&format!("[checksums.latest]\nlinux-amd64 = {file}")).is_err());
    }
}
