//! What was set and where: a file, over it the environment, over it the flags. Every setting is a key of the
//! file, and but for a few also a variable, in capitals. The struct is the one list of them. Decides nothing
//! about values; `Config::check` does.

use std::{fs, path::Path};

use reqwest::Url;
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor, value::Error},
    forward_to_deserialize_any,
};
use toml::{Table, Value};

use super::{ConfigError, Published, exposure::is_exposed};

/// What no variable sets.
const FILE_AND_FLAGS: [&str; 3] = ["listen", "releases", "checksums"];

/// What a file must keep from other users.
const SECRETS: [&str; 6] = [
    "jwt_secret",
    "noti_webhook_secret",
    "noti_service_token",
    "metrics_token",
    "oidc_client_secret",
    "otlp_headers",
];

/// What was set. It holds secrets, so it cannot be printed.
#[derive(Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = ".env.example and `Config` document each")]
pub struct Settings {
    pub listen: Option<String>,
    pub releases: Option<String>,
    pub standby: Option<String>,
    pub shared: Option<String>,
    pub public_url: Option<String>,
    pub database_url: Option<String>,
    pub database_password_file: Option<String>,
    pub database_connections: Option<String>,
    pub database_statement_timeout: Option<String>,
    pub heartbeat_timeout: Option<String>,
    pub upgrades_per_second: Option<String>,
    pub default_daemon_version: Option<String>,
    pub release_base_url: Option<String>,
    pub release_public_key: Option<String>,
    pub docs_base_url: Option<String>,
    pub noti_service_url: Option<String>,
    pub noti_event_types: Option<String>,
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
    pub telemetry_retention: Option<String>,
    pub alarm_offline_after: Option<String>,
    pub webhook_networks: Option<String>,
    pub oidc_issuer: Option<String>,
    pub oidc_client_id: Option<String>,
    pub oidc_client_secret: Option<String>,
    pub oidc_client_secret_file: Option<String>,
    pub oidc_name: Option<String>,
    pub oidc_scopes: Option<String>,
    pub oidc_user_claim: Option<String>,
    pub oidc_org_claim: Option<String>,
    pub oidc_role_claim: Option<String>,
    pub oidc_roles: Option<String>,
    pub oidc_session: Option<String>,
    pub otlp_endpoint: Option<String>,
    pub otlp_headers: Option<String>,
    pub otlp_interval: Option<String>,
    pub dashboard_origins: Option<String>,
    pub metrics_token: Option<String>,
    pub jwt_secret: Option<String>,
    pub jwt_private_key_file: Option<String>,
    pub jwt_public_key_file: Option<String>,
    pub api_requests_per_second: Option<String>,
    pub trusted_proxies: Option<String>,
    pub tls_cert: Option<String>,
    pub tls_key: Option<String>,
    pub tls_self_signed: Option<String>,
    pub insecure_http: Option<String>,
    pub aiwm: Option<String>,
    pub aiwm_double: Option<String>,
    /// By version and file name: `[checksums."v1.0.0"]`, `linux-amd64 = { checksum = "sha256:…",
    /// size = 123 }`.
    pub checksums: Published,
}

/// The variables that the controller reads from its environment. `.env.example` documents each.
pub fn variables() -> Vec<String> {
    let names = names().iter().filter(|name| !FILE_AND_FLAGS.contains(name));
    names.map(|name| name.to_uppercase()).collect()
}

impl Settings {
    /// Puts together what `file`, the environment and the flags say; an empty variable is not set.
    pub fn gather(
        file: Option<&Path>,
        environment: impl Fn(&str) -> Option<String>,
        flags: Table,
    ) -> Result<Self, ConfigError> {
        let mut table = file.map_or_else(|| Ok(Table::new()), read)?;
        for name in variables() {
            if let Some(value) = environment(&name).filter(|value| !value.is_empty()) {
                table.insert(name.to_lowercase(), value.into());
            }
        }
        table.extend(flags);
        let texts = table.into_iter().map(|(name, value)| (name, as_text(value))).collect();
        // Only the file can hold what is not known.
        Value::Table(texts).try_into().map_err(|source| ConfigError::Invalid {
            path: file.unwrap_or(Path::new("the command line")).to_owned(),
            source: Box::new(source),
        })
    }
}

fn read(path: &Path) -> Result<Table, ConfigError> {
    let text = fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let table: Table = toml::from_str(&text)
        .map_err(|source| ConfigError::Invalid { path: path.to_owned(), source: Box::new(source) })?;
    let holds_secret = SECRETS.iter().any(|name| table.contains_key(*name)) || names_password(&table);
    if holds_secret && is_exposed(path) {
        return Err(ConfigError::Exposed { path: path.to_owned() });
    }
    Ok(table)
}

/// Whether the database's address has a password.
fn names_password(table: &Table) -> bool {
    let address = table.get("database_url").and_then(Value::as_str).and_then(|url| url.parse::<Url>().ok());
    address.is_some_and(|url| url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password"))
}

/// In a file numbers, switches and lists are written as people write them; in the environment
/// everything is text.
fn as_text(value: Value) -> Value {
    match value {
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string().into(),
        Value::Array(values) if values.iter().all(Value::is_str) => {
            values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",").into()
        }
        other => other,
    }
}

/// The settings' names: what serde asks for.
fn names() -> &'static [&'static str] {
    struct Names<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, Error> {
            *self.0 = fields;
            Err(de::Error::custom("only the names were asked for"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
            Err(de::Error::custom("no struct"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
            tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut names: &[&str] = &[];
    // It fails by design.
    let _ = Settings::deserialize(Names(&mut names));
    names
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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

    fn of_file(text: &str) -> Result<Settings, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Settings::gather(Some(file.path()), |_| None, Table::new())
    }

    fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Settings {
        Settings::gather(None, variable, Table::new()).ok().unwrap()
    }

    #[test]
    fn the_sample_documents_exactly_the_variables_that_are_read() {
        let mut known = variables();
        known.sort_unstable();
        assert_eq!(documented().into_keys().collect::<Vec<_>>(), known);
    }

    #[test]
    fn the_samples_values_are_valid() {
        let documented = documented();
        let settings = of_environment(|name| documented.get(name).map(|value| (*value).to_owned()));
        super::super::Config::check("data", settings).unwrap();
    }

    #[test]
    fn every_variable_is_a_key_of_the_file_and_reaches_the_same_setting() {
        for name in variables() {
            let from_file = of_file(&format!("{} = \"value\"", name.to_lowercase())).ok().unwrap();
            let from_environment = of_environment(|asked| (asked == name).then(|| "value".to_owned()));
            assert!(from_file == from_environment && from_file != Settings::default(), "{name}");
        }
    }

    #[test]
    fn a_file_has_numbers_switches_and_lists_as_people_write_them() {
        for line in ["tls_self_signed = true", "tls_self_signed = \"true\""] {
            assert_eq!(of_file(line).ok().unwrap().tls_self_signed.as_deref(), Some("true"));
        }
        assert_eq!(
            of_file("heartbeat_timeout = 120").ok().unwrap().heartbeat_timeout.as_deref(),
            Some("120")
        );
        let listed = of_file("dashboard_origins = [\"https://a\", \"https://b\"]").ok().unwrap();
        assert_eq!(listed.dashboard_origins.as_deref(), Some("https://a,https://b"));
        for line in ["listen = [7]", "listen = { port = 7 }", "checksums = 7"] {
            assert!(matches!(of_file(line), Err(ConfigError::Invalid { .. })), "{line}");
        }
    }

    #[test]
    fn flags_overrule_the_environment_which_overrules_the_file_and_an_empty_variable_is_not_set() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            file.path(),
            "public_url = \"http://file\"\nlisten = \"[::1]:1\"\ndocs_base_url = \"http://file\"",
        )
        .unwrap();
        let environment = |name: &str| match name {
            "PUBLIC_URL" | "RELEASE_BASE_URL" => Some("http://env".to_owned()),
            "JWT_SECRET" | "DOCS_BASE_URL" => Some(String::new()),
            _ => None,
        };
        let flags = [("release_base_url".to_owned(), "http://flag".into())].into_iter().collect();
        let merged = Settings::gather(Some(file.path()), environment, flags).ok().unwrap();
        assert_eq!(merged.public_url.as_deref(), Some("http://env"));
        assert_eq!(merged.release_base_url.as_deref(), Some("http://flag"));
        assert_eq!((merged.listen.as_deref(), merged.jwt_secret), (Some("[::1]:1"), None));
        assert_eq!(merged.docs_base_url.as_deref(), Some("http://file"));
    }

    #[test]
    fn a_file_with_a_secret_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, mode, good) in [
            ("jwt_secret = \"x\"", 0o644, false),
            ("metrics_token = \"x\"", 0o604, false),
            ("jwt_secret = \"x\"", 0o640, true),
            ("jwt_secret = \"x\"", 0o600, true),
            ("listen = \"[::1]:1\"", 0o644, true),
        ] {
            fs::write(file.path(), text).unwrap();
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            let gathered = Settings::gather(Some(file.path()), |_| None, Table::new());
            match gathered {
                Ok(_) => assert!(good, "{text} {mode:o}"),
                Err(error) => {
                    assert_eq!(
                        (error.code(), good),
                        (aio_protocol::error_code::ErrorCode::SecretExposed, false)
                    );
                }
            }
        }
    }

    #[test]
    fn an_unknown_key_and_an_unknown_release_file_are_refused() {
        assert!(of_file("pubic_url = \"http://x\"").is_err());
        let file = format!("{{ checksum = \"sha256:{}\", size = 7 }}", "a".repeat(64));
        let good: Settings =
            of_file(&format!("[checksums.\"v1.0.0\"]\n\"aio-installer-linux-amd64\" = {file}")).ok().unwrap();
        let (version, files) = good.checksums.first_key_value().unwrap();
        assert_eq!(version.to_string(), "v1.0.0");
        assert!(files.contains_key(&"aio-installer-linux-amd64".parse::<ReleaseFile>().unwrap()));
        assert!(of_file(&format!("[checksums.\"v1.0.0\"]\nlinux = {file}")).is_err());
        assert!(of_file(&format!("[checksums.latest]\nlinux-amd64 = {file}")).is_err());
    }
}
