//! What the controller was told, checked: a `Config` holds no impossible value. Where it was told (file,
//! environment, flags) and which of them wins stands in `settings`.

pub(crate) mod exposure;
mod oidc;
mod otlp;
mod settings;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use aio_protocol::{
    error_code::ErrorCode,
    event::EventKind,
    release::{ReleaseVersion, index::KeyId},
    time,
};
use ipnet::{IpNet, Ipv4Net};
use reqwest::Url;
use secrecy::SecretString;

use crate::telemetry::LONGEST_HISTORY;

pub use crate::releases::{Published, PublishedFile};

pub use oidc::Oidc;
pub use otlp::Otlp;
pub use settings::{Settings, variables};

/// The checked configuration. `Config::new` has the built-in values; every field may be changed
/// before `Server::start`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The folder of the database and the secrets; made when it is not there.
    pub data_dir: PathBuf,
    /// The database; `controller.db` in the data folder when unset.
    pub database_url: Option<SecretString>,
    /// Where the password of PostgreSQL's user stands, when not in `database_url`.
    pub database_password_file: Option<PathBuf>,
    /// Connections to PostgreSQL that read; one more writes, and one keeps other controllers out.
    pub database_connections: u32,
    /// Maximum time of one statement on PostgreSQL.
    pub database_statement_timeout: Duration,
    /// Whether to wait while another controller serves the database, and to serve it then.
    pub standby: bool,
    /// Whether to serve the database together with other controllers.
    pub shared: bool,
    /// The address that nodes reach this controller by; the listening address when unset.
    pub public_url: Option<Url>,
    /// The folder of the releases that this controller serves itself.
    pub releases: Option<PathBuf>,
    /// Where nodes download releases; this controller's own `/releases` when unset.
    pub release_base_url: Option<Url>,
    /// Where the documentation stands.
    pub docs_base_url: Url,
    /// The release of a token that asks for none.
    pub default_daemon_version: ReleaseVersion,
    /// The minisign keys that releases are signed with; with one, nodes refuse unsigned ones. The
    /// first is the one that tokens carry.
    pub release_public_keys: Vec<String>,
    /// Releases that are served elsewhere.
    pub checksums: Published,
    /// The NOTI service; the built-in one when unset.
    pub noti_service_url: Option<Url>,
    /// The types of event that NOTI is told of: all for the built-in one.
    pub noti_event_types: Vec<EventKind>,
    /// Signs tokens (HS256); made on first start when unset and no key is named. Beside a key,
    /// tokens that it signed stay valid.
    pub jwt_secret: Option<SecretString>,
    /// The PEM file of the Ed25519 key that signs tokens.
    pub jwt_private_key_file: Option<PathBuf>,
    /// The PEM file of its public half. Alone, tokens are verified here and not made.
    pub jwt_public_key_file: Option<PathBuf>,
    /// Signs events; made on first start when unset. Two, with a blank between them, while one
    /// takes the other's place.
    pub noti_webhook_secret: Option<SecretString>,
    /// The PEM file of the certificates that NOTI is trusted by, and by no others; the operating
    /// system's when unset.
    pub noti_ca_file: Option<PathBuf>,
    /// The PEM files of the certificate's chain that this controller shows NOTI, and of its key.
    pub noti_client_files: Option<(PathBuf, PathBuf)>,
    /// Opens NOTI; made on first start when unset.
    pub noti_service_token: Option<SecretString>,
    /// The PEM files of the TLS certificate's chain and of its key.
    pub tls_files: Option<(PathBuf, PathBuf)>,
    /// Serve TLS with a certificate of the controller's own private authority.
    pub tls_self_signed: bool,
    /// Allow plain HTTP to other machines.
    pub insecure_http: bool,
    /// How long delivery of events pauses first when NOTI fails again and again; each further pause
    /// is twice as long, up to twelve times this.
    pub noti_breaker_pause: Duration,
    /// How long a controller that is told to stop goes on, with `/readyz` saying that it will not.
    pub shutdown_lame_duck: Duration,
    /// How many requests a client of the API may send in a second; as many as it likes when unset.
    pub api_requests_per_second: Option<NonZeroU32>,
    /// The proxies that are believed when they say for whom they ask.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether and how this controller also speaks as AIWM's services do.
    pub aiwm: Option<Aiwm>,
    /// Whether tests may make it fail, and read what was said to it: AIWM's double.
    pub aiwm_double: bool,
    /// How long the built-in NOTI keeps events.
    pub event_retention: Duration,
    /// How long moves of nodes and what people did are kept.
    pub history_retention: Duration,
    /// How long events that were given up are kept.
    pub dead_letter_retention: Duration,
    /// How long decommissioned nodes are kept.
    pub inactive_node_retention: Duration,
    /// How long the history of what nodes measure is kept; none when zero.
    pub telemetry_retention: Duration,
    /// How long a node may be offline before an alarm is raised.
    pub alarm_offline_after: Duration,
    /// Interval between looks for alarms.
    pub alarm_interval: Duration,
    /// The identity provider that people sign in to the pages through.
    pub oidc: Option<Oidc>,
    /// The receiver that the fleet's figures are pushed to.
    pub otlp: Option<Otlp>,
    /// The networks inside in which webhooks of organisations may be.
    pub webhook_networks: Vec<IpNet>,
    /// The origins of web pages that may watch events, as browsers write them: `https://dashboard.example`.
    pub dashboard_origins: Vec<String>,
    /// How long a dashboard may take to read what was sent to it.
    pub dashboard_patience: Duration,
    /// Opens `/metrics`; without it, only this machine may read them.
    pub metrics_token: Option<SecretString>,
    /// How long a silent worker counts as there.
    pub heartbeat_timeout: Duration,
    /// How long an installation may go without a report.
    pub installation_timeout: Duration,
    /// How long a connection may go without registering.
    pub register_timeout: Duration,
    /// How long a worker's socket may outlive its token.
    pub token_grace: Duration,
    /// How far `lastSeenAt` in the database may lag behind. The API knows better, and a transition
    /// writes it exactly.
    pub last_seen_lag: Duration,
    /// How many workers may connect in a second; others are told to come back.
    pub upgrades_per_second: NonZeroU32,
    /// How many may be in the middle of it.
    pub max_handshakes: u32,
    /// Bytes of memory for answers that peers have not taken yet. An organisation or a node has an
    /// eighth of it, an address without an accepted token a 16th.
    pub answer_bytes: u64,
}

/// How AIWM's dialect answers for a node that a user may not see, or an id that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aiwm {
    /// 404 and 400.
    Lenient,
    /// 403 and 500, as AIWM does.
    Strict,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not TOML, or has an unknown key or a value of the wrong type.
    #[error("{path} is not a valid configuration")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// The file holds a secret, and others can read it.
    #[error("{path} holds a secret, and every user of this machine can read it")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// A value is impossible.
    #[error("{name} {problem}")]
    Value {
        /// The variable's name; the file's key is the same in lower case.
        name: &'static str,
        /// What is wrong with it; never the value of a secret.
        problem: String,
    },
}

impl ConfigError {
    /// The catalogue's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unreadable { .. } => ErrorCode::FileFailed,
            Self::Exposed { .. } => ErrorCode::SecretExposed,
            Self::Invalid { .. } | Self::Value { .. } => ErrorCode::ConfigInvalid,
        }
    }
}

/// Secrets shorter than this can be guessed offline from one signed message.
const MIN_SECRET_BYTES: usize = 16;

/// Leases shorter than this end before a heartbeat crosses a network; longer ones tell nobody anything.
const HEARTBEAT_TIMEOUTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(86_400));

/// More than a dashboard or a script of one user needs.
const API_REQUESTS_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);

/// A fleet of 10,000 is back in some 10 s.
const UPGRADES_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(999);

/// Shorter ones pause nothing; longer ones keep events from a NOTI that is well again.
const BREAKER_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(300));

/// A node that comes back within a day may be one that nobody should be woken for.
const ALARM_OFFLINE_AFTERS: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(86_400));

/// A load balancer that looks less often than every 5 minutes looks too seldom.
const SHUTDOWN_LAME_DUCKS: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(300));

impl Config {
    /// The built-in values.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        #[expect(clippy::expect_used, reason = "constants; a test calls this")]
        let (docs_base_url, default_daemon_version) =
            (Url::parse("https://docs.x-or.cloud").expect("a URL"), "v1.0.0".parse().expect("a version"));
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3305)),
            data_dir: data_dir.into(),
            database_url: None,
            database_password_file: None,
            database_connections: 8,
            database_statement_timeout: Duration::from_secs(30),
            standby: false,
            shared: false,
            public_url: None,
            releases: None,
            release_base_url: None,
            docs_base_url,
            default_daemon_version,
            release_public_keys: Vec::new(),
            checksums: Published::new(),
            noti_service_url: None,
            noti_event_types: EventKind::ALL.to_vec(),
            jwt_secret: None,
            jwt_private_key_file: None,
            jwt_public_key_file: None,
            noti_webhook_secret: None,
            noti_ca_file: None,
            noti_client_files: None,
            noti_service_token: None,
            tls_files: None,
            tls_self_signed: false,
            insecure_http: false,
            noti_breaker_pause: Duration::from_secs(5),
            shutdown_lame_duck: Duration::ZERO,
            api_requests_per_second: Some(API_REQUESTS_PER_SECOND),
            trusted_proxies: Vec::new(),
            aiwm: None,
            aiwm_double: false,
            event_retention: Duration::from_secs(30 * 86_400),
            history_retention: Duration::from_secs(730 * 86_400),
            dead_letter_retention: Duration::from_secs(90 * 86_400),
            inactive_node_retention: Duration::from_secs(365 * 86_400),
            telemetry_retention: Duration::from_secs(86_400),
            alarm_offline_after: Duration::from_secs(5 * 60),
            alarm_interval: Duration::from_secs(5),
            oidc: None,
            otlp: None,
            webhook_networks: Vec::new(),
            dashboard_origins: Vec::new(),
            dashboard_patience: Duration::from_secs(15),
            metrics_token: None,
            heartbeat_timeout: Duration::from_secs(120),
            installation_timeout: Duration::from_secs(15 * 60),
            register_timeout: Duration::from_secs(10),
            token_grace: Duration::from_secs(5 * 60),
            last_seen_lag: Duration::from_secs(60),
            upgrades_per_second: UPGRADES_PER_SECOND,
            max_handshakes: 512,
            answer_bytes: 256 * 1024 * 1024,
        }
    }

    /// Checks what was set; what was not keeps its built-in value.
    pub fn check(data_dir: impl Into<PathBuf>, mut settings: Settings) -> Result<Self, ConfigError> {
        let mut config = Self::new(data_dir);
        config.oidc = Oidc::check(&mut settings)?;
        config.otlp = Otlp::check(&mut settings)?;
        if let Some(listen) = settings.listen {
            config.listen = listen_address(&listen)?;
        }
        if let Some(url) = settings.docs_base_url {
            config.docs_base_url = web_url("DOCS_BASE_URL", &url)?;
        }
        if let Some(version) = settings.default_daemon_version {
            config.default_daemon_version = parsed("DEFAULT_DAEMON_VERSION", &version)?;
        }
        if let Some(timeout) = settings.heartbeat_timeout {
            config.heartbeat_timeout = heartbeat_timeout(&timeout)?;
        }
        if let Some(rate) = settings.upgrades_per_second {
            config.upgrades_per_second = parsed("UPGRADES_PER_SECOND", rate.trim())?;
        }
        if let Some(pause) = settings.noti_breaker_pause {
            config.noti_breaker_pause = duration("NOTI_BREAKER_PAUSE", &pause, BREAKER_PAUSES)?;
        }
        if let Some(time) = settings.shutdown_lame_duck {
            config.shutdown_lame_duck = duration("SHUTDOWN_LAME_DUCK", &time, SHUTDOWN_LAME_DUCKS)?;
        }
        // Absolute, because `node add` reads it in another folder.
        config.releases = settings
            .releases
            .map(std::path::absolute)
            .transpose()
            .map_err(|error| value_error("RELEASES", error.to_string()))?;
        config.public_url = settings.public_url.map(|url| web_url("PUBLIC_URL", &url)).transpose()?;
        config.release_base_url =
            settings.release_base_url.map(|url| web_url("RELEASE_BASE_URL", &url)).transpose()?;
        config.noti_service_url =
            settings.noti_service_url.map(|url| web_url("NOTI_SERVICE_URL", &url)).transpose()?;
        config.noti_event_types = match settings.noti_event_types {
            Some(types) => listed(&types).map(event_kind).collect::<Result<_, _>>()?,
            None if config.noti_service_url.is_some() => EventKind::FOUNDING.to_vec(),
            None => EventKind::ALL.to_vec(),
        };
        config.database_url = settings.database_url.map(database_url).transpose()?;
        config.database_password_file = settings.database_password_file.map(PathBuf::from);
        if let Some(connections) = settings.database_connections {
            config.database_connections = database_connections(&connections)?;
        }
        if let Some(timeout) = settings.database_statement_timeout {
            config.database_statement_timeout =
                duration("DATABASE_STATEMENT_TIMEOUT", &timeout, STATEMENT_TIMEOUTS)?;
        }
        config.release_public_keys =
            release_keys(settings.release_public_key.as_deref().unwrap_or_default())?;
        if let Some(rate) = settings.api_requests_per_second {
            config.api_requests_per_second = NonZeroU32::new(parsed("API_REQUESTS_PER_SECOND", rate.trim())?);
        }
        config.trusted_proxies = networks("TRUSTED_PROXIES", settings.trusted_proxies.as_deref())?;
        config.jwt_private_key_file = settings.jwt_private_key_file.map(PathBuf::from);
        config.jwt_public_key_file = settings.jwt_public_key_file.map(PathBuf::from);
        config.jwt_secret = settings.jwt_secret.map(|it| secret("JWT_SECRET", it)).transpose()?;
        config.noti_webhook_secret =
            settings.noti_webhook_secret.map(|it| secret("NOTI_WEBHOOK_SECRET", it)).transpose()?;
        config.noti_service_token =
            settings.noti_service_token.map(|it| secret("NOTI_SERVICE_TOKEN", it)).transpose()?;
        config.tls_self_signed = switch("TLS_SELF_SIGNED", settings.tls_self_signed.as_deref())?;
        config.standby = switch("STANDBY", settings.standby.as_deref())?;
        if config.standby && (config.public_url.is_none() || config.database_url.is_none()) {
            return Err(value_error(
                "STANDBY",
                "needs DATABASE_URL on PostgreSQL, and PUBLIC_URL, by which nodes reach whoever serves",
            ));
        }
        config.shared = switch("SHARED", settings.shared.as_deref())?;
        config.insecure_http = switch("INSECURE_HTTP", settings.insecure_http.as_deref())?;
        config.aiwm = aiwm(settings.aiwm.as_deref())?;
        config.aiwm_double = switch("AIWM_DOUBLE", settings.aiwm_double.as_deref())?;
        if config.shared {
            refuse_unless_shareable(&config)?;
        }
        if config.aiwm_double && config.aiwm.is_none() {
            return Err(value_error("AIWM_DOUBLE", "is a part of AIWM's dialect: set AIWM, too"));
        }
        config.noti_ca_file = settings.noti_ca_file.map(PathBuf::from);
        let names = ("NOTI_CLIENT_CERT_FILE", "NOTI_CLIENT_KEY_FILE");
        config.noti_client_files =
            certificate_and_key(names, settings.noti_client_cert_file, settings.noti_client_key_file)?;
        config.tls_files = certificate_and_key(("TLS_CERT", "TLS_KEY"), settings.tls_cert, settings.tls_key)?;
        if config.tls_files.is_some() && config.tls_self_signed {
            return Err(value_error("TLS_SELF_SIGNED", "and TLS_CERT exclude each other"));
        }
        let clear = |url: &Url| url.scheme() == "http";
        if config.serves_tls() && config.public_url.as_ref().is_some_and(clear) {
            return Err(value_error("PUBLIC_URL", "must begin with https://, because TLS is served"));
        }
        for (name, text, kept) in [
            ("EVENT_RETENTION", settings.event_retention, &mut config.event_retention),
            ("HISTORY_RETENTION", settings.history_retention, &mut config.history_retention),
            ("DEAD_LETTER_RETENTION", settings.dead_letter_retention, &mut config.dead_letter_retention),
            (
                "INACTIVE_NODE_RETENTION",
                settings.inactive_node_retention,
                &mut config.inactive_node_retention,
            ),
        ] {
            if let Some(text) = text {
                *kept = retention(name, &text, RETENTIONS)?;
            }
        }
        if let Some(time) = settings.alarm_offline_after {
            config.alarm_offline_after = duration("ALARM_OFFLINE_AFTER", &time, ALARM_OFFLINE_AFTERS)?;
        }
        if let Some(text) = settings.telemetry_retention {
            let bounds = (Duration::ZERO, LONGEST_HISTORY);
            config.telemetry_retention = retention("TELEMETRY_RETENTION", &text, bounds)?;
        }
        config.webhook_networks = networks("WEBHOOK_NETWORKS", settings.webhook_networks.as_deref())?;
        if let Some(origins) = settings.dashboard_origins {
            config.dashboard_origins = listed(&origins).map(origin).collect::<Result<_, _>>()?;
        }
        config.metrics_token = settings.metrics_token.map(|it| secret("METRICS_TOKEN", it)).transpose()?;
        config.checksums = settings.checksums;
        Ok(config)
    }

    /// Whether the controller ends TLS itself.
    pub(crate) fn serves_tls(&self) -> bool {
        self.tls_files.is_some() || self.tls_self_signed
    }
}

fn certificate_and_key(
    names: (&'static str, &'static str),
    certificate: Option<String>,
    key: Option<String>,
) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some((certificate.into(), key.into()))),
        (Some(_), None) => Err(value_error(names.1, format!("is missing: {} is set", names.0))),
        (None, Some(_)) => Err(value_error(names.0, format!("is missing: {} is set", names.1))),
    }
}

fn event_kind(name: &str) -> Result<EventKind, ConfigError> {
    EventKind::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
        let all = EventKind::ALL.map(EventKind::as_str).join(", ");
        value_error(
            "NOTI_EVENT_TYPES",
            format!("must name types of event, with commas between them, of {all}"),
        )
    })
}

/// Addresses and networks, with commas between them.
fn networks(name: &'static str, text: Option<&str>) -> Result<Vec<IpNet>, ConfigError> {
    listed(text.unwrap_or_default())
        .map(|entry| match entry.parse::<IpAddr>() {
            Ok(address) => Ok(address.to_canonical().into()),
            Err(_) => parsed(name, entry).map(canonical),
        })
        .collect()
}

/// A network of IPv4 addresses that are written as IPv6, as clients' addresses are compared: as IPv4.
fn canonical(network: IpNet) -> IpNet {
    let mapped = || {
        let IpAddr::V4(address) = network.addr().to_canonical() else { return None };
        Ipv4Net::new(address, network.prefix_len().checked_sub(96)?).ok()
    };
    if network.addr().is_ipv4() { network } else { mapped().map_or(network, IpNet::V4) }
}

/// The entries of a list with commas between them; one at its end is nothing.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// Refuses what controllers that serve a database together cannot be.
fn refuse_unless_shareable(config: &Config) -> Result<(), ConfigError> {
    let problem = if config.public_url.is_none() || config.database_url.is_none() {
        "needs DATABASE_URL on PostgreSQL, and PUBLIC_URL, by which nodes reach all that serve"
    } else if config.standby {
        "and STANDBY exclude each other: one that serves together with others waits for nobody"
    } else if config.aiwm.is_some() {
        "and AIWM exclude each other: what AIWM's dialect keeps in memory is one controller's alone"
    } else {
        return Ok(());
    };
    Err(value_error("SHARED", problem))
}

fn switch(name: &'static str, text: Option<&str>) -> Result<bool, ConfigError> {
    let text = text.unwrap_or("false").trim();
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(value_error(name, format!("must be true or false, not `{text}`"))),
    }
}

fn aiwm(text: Option<&str>) -> Result<Option<Aiwm>, ConfigError> {
    match text.map(str::trim) {
        Some(text) if text.eq_ignore_ascii_case("strict") => Ok(Some(Aiwm::Strict)),
        text => match switch("AIWM", text) {
            Ok(on) => Ok(on.then_some(Aiwm::Lenient)),
            Err(_) => {
                let text = text.unwrap_or_default();
                Err(value_error("AIWM", format!("must be true, false or strict, not `{text}`")))
            }
        },
    }
}

/// An address and a port, or a name and a port; of a name's addresses an IPv4 one where there is
/// one, as the built-in address is.
fn listen_address(text: &str) -> Result<SocketAddr, ConfigError> {
    const NAME: &str = "LISTEN";
    let text = text.trim();
    let found = text
        .to_socket_addrs()
        .map_err(|error| {
            value_error(
                NAME,
                format!("cannot be `{text}`: {error}; it takes an address or a name, and a port"),
            )
        })?
        .collect::<Vec<_>>();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| value_error(NAME, format!("`{text}` has no address")))
}

fn value_error(name: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Value { name, problem: problem.into() }
}

fn parsed<T: std::str::FromStr>(name: &'static str, text: &str) -> Result<T, ConfigError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| value_error(name, format!("cannot be `{text}`: {error}")))
}

/// An address for people and programs to append paths to.
fn web_url(name: &'static str, text: &str) -> Result<Url, ConfigError> {
    let url: Url = parsed(name, text)?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(value_error(name, format!("must begin with http:// or https://, not `{text}`")));
    }
    if url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(value_error(name, "must not have a user, a query or a fragment"));
    }
    Ok(url)
}

fn database_url(text: String) -> Result<SecretString, ConfigError> {
    if ["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| text.starts_with(scheme)) {
        Ok(text.into())
    } else {
        // The address may hold a password, so it is not repeated.
        Err(value_error("DATABASE_URL", "must begin with sqlite: or postgres:"))
    }
}

fn database_connections(text: &str) -> Result<u32, ConfigError> {
    const NAME: &str = "DATABASE_CONNECTIONS";
    let connections = parsed(NAME, text.trim())?;
    if (2..=500).contains(&connections) {
        return Ok(connections);
    }
    Err(value_error(NAME, format!("must be between 2 and 500, not `{text}`")))
}

/// A list of a large fleet takes seconds; nobody waits for minutes.
const STATEMENT_TIMEOUTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// Duplicates are recognised by what is kept, and an outbox repeats an event for a day.
const RETENTIONS: (Duration, Duration) = (Duration::from_secs(86_400), Duration::from_secs(3_660 * 86_400));

fn retention(name: &'static str, text: &str, limits: (Duration, Duration)) -> Result<Duration, ConfigError> {
    let days = |bound: Duration| bound.as_secs() / 86_400;
    within(name, text, limits, &format!("between {}d and {}d", days(limits.0), days(limits.1)))
}

fn heartbeat_timeout(text: &str) -> Result<Duration, ConfigError> {
    duration("HEARTBEAT_TIMEOUT", text, HEARTBEAT_TIMEOUTS)
}

fn duration(name: &'static str, text: &str, limits: (Duration, Duration)) -> Result<Duration, ConfigError> {
    within(name, text, limits, &format!("between {:?} and {:?}", limits.0, limits.1))
}

fn within(
    name: &'static str,
    text: &str,
    (shortest, longest): (Duration, Duration),
    limits: &str,
) -> Result<Duration, ConfigError> {
    let found = time::duration(text).filter(|duration| (shortest..=longest).contains(duration));
    found.ok_or_else(|| value_error(name, format!("must be {limits}, such as 90s, 5m or 2d, not `{text}`")))
}

/// A page's origin as browsers write it.
fn origin(text: &str) -> Result<String, ConfigError> {
    const NAME: &str = "DASHBOARD_ORIGINS";
    let url = web_url(NAME, text.trim())?;
    if url.path() != "/" {
        return Err(value_error(NAME, format!("takes scheme, host and port, and no path: `{text}`")));
    }
    Ok(url.origin().ascii_serialization())
}

/// Minisign public keys as the tool prints them, with commas, blanks or line breaks between.
fn release_keys(text: &str) -> Result<Vec<String>, ConfigError> {
    let keys = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|key| !key.is_empty());
    let mut found = Vec::new();
    for key in keys {
        if KeyId::of_public_key(key).is_none() {
            let problem = "is not a minisign public key, or several: the second line of each .pub file is";
            return Err(value_error("RELEASE_PUBLIC_KEY", problem));
        }
        if !found.iter().any(|it| it == key) {
            found.push(key.to_owned());
        }
    }
    Ok(found)
}

fn secret(name: &'static str, text: String) -> Result<SecretString, ConfigError> {
    if text.len() < MIN_SECRET_BYTES {
        return Err(value_error(
            name,
            format!("is shorter than {MIN_SECRET_BYTES} bytes; it can be guessed"),
        ));
    }
    if text.trim().len() < MIN_SECRET_BYTES || text.chars().any(char::is_control) {
        return Err(value_error(name, "has control characters, or hardly more than blanks".to_owned()));
    }
    Ok(SecretString::from(text))
}
