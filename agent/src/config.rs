//! What the daemon was told: built-in < file < environment < flag, checked into a [`WorkerConfig`]
//! that holds nothing impossible. The variables of the older hand-written unit are read here.
//! Nothing here connects or waits.

use std::path::{Path, PathBuf};

use aio_host::{
    config::ConfigFile,
    layout::Layout,
    proxy::{NoProxy, Proxy},
    tls::{PinnedAuthority, Trust},
    token::{NodeToken, TokenError},
};
use aio_installer::Failure;
use aio_protocol::{claims::NodeClaims, error_code::ErrorCode, ids::NodeId};
use secrecy::SecretString;
use tokio_tungstenite::tungstenite::http::Uri;

use crate::{
    aiwm::account::AccountRoute,
    endpoint::Endpoint,
    health::{OutOfRange, Thresholds},
    tokens::rotation::{Held, Origin},
    tokens::source::TokenSource,
    tokens::store::RotatedTokens,
    update::policy::{Senseless, Settings},
};

/// What may be said on the command line of `aio-worker start`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// The node token. Other users can read a command line: prefer --token-file [env: AIO_NODE_TOKEN]
    #[arg(long, conflicts_with = "token_file", hide_env_values = true)]
    pub token: Option<SecretString>,
    /// A file with the node token; `-` reads it from standard input
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The configuration [default: /etc/aio-worker/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the daemon keeps its state [default: $STATE_DIRECTORY or /var/lib/aio-worker]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where the status socket is made [env: AIO_RUNTIME_DIR] [default: $RUNTIME_DIRECTORY or
    /// /run/aio-worker]
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
    /// A PEM file of authorities to trust beside the operating system's [env: AIO_CA_FILE]
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Allow plain ws to other machines: for labs, the token crosses the network in the clear [env:
    /// AIO_INSECURE_HTTP]
    #[arg(long)]
    pub insecure_http: bool,
}

/// What the daemon goes by.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The node that it speaks for, for as long as it runs.
    pub node_id: NodeId,
    /// Where its token is.
    pub token: TokenSource,
    /// Instead of the token's endpoint.
    pub endpoint: Option<Endpoint>,
    /// Authorities (PEM) to trust beside the operating system's.
    pub ca_file: Option<PathBuf>,
    /// The proxy to the controller that somebody named, instead of what the environment says.
    pub proxy: Option<Proxy>,
    /// Whether plain `ws` may leave this machine.
    pub insecure_http: bool,
    /// The GPU driver's library.
    pub nvml_library: PathBuf,
    /// From when on a GPU is not well.
    pub health: Thresholds,
    /// How updates are taken.
    pub updates: Settings,
    /// The log filter.
    pub log: String,
    /// Where state is kept: the tokens that the controller gave in place of the installed one.
    pub state_dir: PathBuf,
    /// Where the status socket is.
    pub runtime_dir: PathBuf,
    /// What the older unit says it starts; for the log alone.
    pub unit_version: Option<String>,
}

/// What one connection needs: read anew for each, because files change.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The token's text.
    pub secret: SecretString,
    /// What it says.
    pub claims: NodeClaims,
    /// Where to connect.
    pub endpoint: Endpoint,
    /// Whom to trust there.
    pub trust: Trust,
    /// What leads there, if not the direct way.
    pub proxy: Option<Proxy>,
    /// Where the controller is an AIWM: what the node logs in with, and where.
    pub aiwm: Option<Box<AccountRoute>>,
}

impl From<Senseless> for Failure {
    fn from(error: Senseless) -> Self {
        Self::caused(ErrorCode::ConfigInvalid, &error)
    }
}

impl From<OutOfRange> for Failure {
    fn from(error: OutOfRange) -> Self {
        Self::caused(ErrorCode::ConfigInvalid, &error)
    }
}

/// A variable of the environment; an empty one counts as not set.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// This process's environment.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

impl WorkerConfig {
    /// Puts together what flags, environment and file say.
    pub fn load(flags: &Flags, env: Environment<'_>) -> Result<Self, Failure> {
        Self::with_token(flags, env, None)
    }

    /// The same anew, for a daemon that goes by this one: of the same node, and with a token that
    /// is read again only where it can be.
    pub fn load_again(&self, flags: &Flags, env: Environment<'_>) -> Result<Self, Failure> {
        let token = (!self.token.may_change()).then(|| self.token.clone());
        let again = Self::with_token(flags, env, token)?;
        if again.node_id != self.node_id {
            return Err(self.foreign(&again.node_id));
        }
        Ok(again)
    }

    fn with_token(flags: &Flags, env: Environment<'_>, token: Option<TokenSource>) -> Result<Self, Failure> {
        let env = &|name: &str| env(name).filter(|value| !value.trim().is_empty());
        let layout = Layout::default();
        let file = config_file(flags.config.as_deref(), &layout)?;
        let insecure_http = flags.insecure_http
            || match env("AIO_INSECURE_HTTP") {
                Some(text) => boolean("AIO_INSECURE_HTTP", &text)?,
                None => file.insecure_http.unwrap_or(false),
            };
        let endpoint = env("AIO_CONTROLLER_ENDPOINT")
            .or(file.controller_endpoint)
            .map(|text| checked_endpoint(&text, insecure_http))
            .transpose()?;
        let token = token.map_or_else(|| token_source(flags, env, &layout), Ok)?;
        let config = Self {
            node_id: node_id(token.read()?.claims(), env)?,
            token,
            endpoint,
            ca_file: flags.ca_file.clone().or_else(|| env("AIO_CA_FILE").map(PathBuf::from)).or(file.ca_file),
            proxy: named_proxy(env("AIO_PROXY"), file.proxy)?,
            insecure_http,
            nvml_library: env("AIO_NVML_LIBRARY")
                .map(PathBuf::from)
                .or(file.nvml_library)
                .unwrap_or_else(|| DEFAULT_NVML_LIBRARY.into()),
            health: Thresholds::of(&file.health.unwrap_or_default())?,
            updates: Settings::of(&file.updates.unwrap_or_default())?,
            log: env("AIO_LOG").or(file.log).unwrap_or_else(|| DEFAULT_LOG.to_owned()),
            state_dir: flags
                .state_dir
                .clone()
                .or_else(|| first_folder(env("STATE_DIRECTORY")))
                .unwrap_or_else(|| layout.state_dir()),
            runtime_dir: runtime_dir(flags.runtime_dir.as_deref(), env),
            unit_version: env("AIO_VERSION"),
        };
        config.installed_credentials().map(|_| config)
    }

    /// Whether a connection is made the same way with both, as far as the configuration says how.
    pub fn connects_like(&self, other: &Self) -> bool {
        let says = |config: &Self| {
            (config.endpoint.clone(), config.ca_file.clone(), config.proxy.clone(), config.insecure_http)
        };
        says(self) == says(other)
    }

    /// The authorities that it names, as they are now; none where they cannot be read.
    pub fn authorities(&self) -> Option<Vec<u8>> {
        std::fs::read(self.ca_file.as_ref()?).ok()
    }

    fn foreign(&self, node: &NodeId) -> Failure {
        let message = format!("the token is now of node {node}, and this daemon runs as {}", self.node_id);
        Failure::new(ErrorCode::TokenForeign, message)
    }

    /// The tokens of this node that are there now. Without an installed one there are none: the
    /// others only renew it.
    pub fn tokens(&self) -> Result<Vec<Held>, Failure> {
        let mut held = vec![Held { origin: Origin::Installed, offer: None, token: self.token.read()? }];
        let rotated = self.rotated().read();
        held.extend(rotated.into_iter().filter(|held| held.token.claims().sub == self.node_id));
        Ok(held)
    }

    /// Where the tokens are that the controller gave in place of the installed one.
    pub fn rotated(&self) -> RotatedTokens {
        RotatedTokens::in_folder(&self.state_dir)
    }

    /// Whom to trust where the controller's releases are: where it answers HTTP as where the session is.
    pub fn release_trust(&self) -> Result<Trust, Failure> {
        let token = self.token.read()?;
        let api = token.claims().api.parse::<Uri>().ok().and_then(|api| Some(api.host()?.to_owned()));
        let mut trust = self.credentials(token)?.trust;
        if let Some(pin) = &mut trust.pin {
            pin.hosts.extend(api);
        }
        Ok(trust)
    }

    /// What a connection with the installed token needs.
    pub fn installed_credentials(&self) -> Result<Credentials, Failure> {
        self.credentials(self.token.read()?)
    }

    /// What a connection with this token needs.
    pub fn credentials(&self, token: NodeToken) -> Result<Credentials, Failure> {
        if token.claims().sub != self.node_id {
            return Err(self.foreign(&token.claims().sub));
        }
        let endpoint = match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => checked_endpoint(&token.claims().ctl, self.insecure_http)?,
        };
        let hosts: Vec<_> = endpoint.host().map(str::to_owned).into_iter().collect();
        let pin = token.claims().ca.clone().map(|fingerprint| PinnedAuthority { fingerprint, hosts });
        let trust = Trust { pin, ca_file: self.ca_file.clone() };
        let proxy = match &self.proxy {
            Some(_) if endpoint.is_this_machine() => None,
            Some(proxy) => Some(proxy.clone()),
            None => Proxy::from_environment(endpoint.uri()).map_err(|error| no_proxy(&error))?,
        };
        let aiwm = token.aiwm().map(|credentials| {
            Box::new(AccountRoute {
                credentials: credentials.clone(),
                trust: trust.clone(),
                proxy: proxy.clone(),
                insecure_http: self.insecure_http,
            })
        });
        let (secret, claims) = (token.secret().clone(), token.claims().clone());
        Ok(Credentials { secret, claims, endpoint, trust, proxy, aiwm })
    }
}

/// The node that the token speaks for, unless the older unit's variable names another.
pub(crate) fn node_id(claims: &NodeClaims, env: Environment<'_>) -> Result<NodeId, Failure> {
    let Some(text) = env("AIO_NODE_ID") else { return Ok(claims.sub.clone()) };
    let expected: NodeId = text
        .trim()
        .parse()
        .map_err(|error| Failure::new(ErrorCode::ConfigInvalid, format!("AIO_NODE_ID: {error}")))?;
    if expected != claims.sub {
        let message = format!("the token is of node {}, and AIO_NODE_ID says {expected}", claims.sub);
        return Err(Failure::new(ErrorCode::TokenForeign, message));
    }
    Ok(claims.sub.clone())
}

/// The driver's library where nobody says otherwise: since driver 560 only this name is there.
pub const DEFAULT_NVML_LIBRARY: &str = "libnvidia-ml.so.1";

pub(crate) const DEFAULT_LOG: &str = "info";

/// How the GPUs are asked and judged, for commands that need no token.
#[derive(Debug, Clone)]
pub struct GpuSettings {
    /// The GPU driver's library.
    pub nvml_library: PathBuf,
    /// From when on a GPU is not well.
    pub health: Thresholds,
}

impl Default for GpuSettings {
    fn default() -> Self {
        Self { nvml_library: DEFAULT_NVML_LIBRARY.into(), health: Thresholds::default() }
    }
}

impl GpuSettings {
    /// What environment and file say: the file that was named, or the usual one.
    pub fn read(config: Option<&Path>, env: Environment<'_>) -> Result<Self, Failure> {
        let layout = Layout::default();
        // A configuration with a proxy's password is not for everybody, and the questions of such a
        // command are.
        let file = if config.is_none() && is_withheld(&layout.config()) {
            ConfigFile::default()
        } else {
            config_file(config, &layout)?
        };
        Self::of(file, env)
    }

    /// What environment and this file say.
    pub fn of(file: ConfigFile, env: Environment<'_>) -> Result<Self, Failure> {
        let named = env("AIO_NVML_LIBRARY").filter(|path| !path.trim().is_empty()).map(PathBuf::from);
        Ok(Self {
            nvml_library: named.or(file.nvml_library).unwrap_or_else(|| DEFAULT_NVML_LIBRARY.into()),
            health: Thresholds::of(&file.health.unwrap_or_default())?,
        })
    }
}

/// Whether this user may not read what is at `path`.
pub(crate) fn is_withheld(path: &Path) -> bool {
    std::fs::File::open(path).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Where the status socket is.
pub fn runtime_dir(flag: Option<&Path>, env: Environment<'_>) -> PathBuf {
    flag.map(Path::to_owned)
        .or_else(|| first_folder(env("RUNTIME_DIRECTORY")))
        .or_else(|| first_folder(env("AIO_RUNTIME_DIR")))
        .unwrap_or_else(|| Layout::default().runtime_dir())
}

/// systemd joins several folders with colons.
fn first_folder(value: Option<String>) -> Option<PathBuf> {
    let value = value?;
    value.split(':').next().filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

fn config_file(flag: Option<&Path>, layout: &Layout) -> Result<ConfigFile, Failure> {
    let invalid =
        |error: &(dyn std::error::Error + 'static)| Failure::caused(ErrorCode::ConfigInvalid, error);
    match flag {
        // The usual file need not be there; one that was named must.
        Some(path) if !path.exists() => {
            Err(Failure::new(ErrorCode::ConfigInvalid, format!("there is no file {}", path.display())))
        }
        Some(path) => ConfigFile::read(path).map_err(|error| invalid(&error)),
        None => ConfigFile::read(&layout.config()).map_err(|error| invalid(&error)),
    }
}

pub(crate) fn named_proxy(variable: Option<String>, key: Option<String>) -> Result<Option<Proxy>, Failure> {
    let named =
        variable.map(|text| (text, "AIO_PROXY")).or(key.map(|text| (text, "`proxy` in the configuration")));
    named.map(|(text, source)| Proxy::named(&text, source)).transpose().map_err(|error| no_proxy(&error))
}

fn no_proxy(error: &NoProxy) -> Failure {
    Failure::caused(ErrorCode::ConfigInvalid, error)
}

pub(crate) fn checked_endpoint(text: &str, insecure: bool) -> Result<Endpoint, Failure> {
    Ok(Endpoint::parse(text, insecure)?)
}

pub(crate) fn boolean(name: &str, text: &str) -> Result<bool, Failure> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(Failure::new(ErrorCode::ConfigInvalid, format!("{name} is `{text}`, not true or false"))),
    }
}

pub(crate) fn token_source(
    flags: &Flags,
    env: Environment<'_>,
    layout: &Layout,
) -> Result<TokenSource, Failure> {
    if let Some(token) = &flags.token {
        return Ok(TokenSource::Given(token.clone()));
    }
    match &flags.token_file {
        Some(path) if path == Path::new("-") => return Ok(TokenSource::from_stdin()?),
        Some(path) => return Ok(TokenSource::File(path.clone())),
        None => {}
    }
    if let Some(token) = env("AIO_NODE_TOKEN") {
        return Ok(TokenSource::Given(token.into()));
    }
    let credential = env("CREDENTIALS_DIRECTORY").map(|folder| Path::new(&folder).join("token"));
    // Where systemd gives no credentials, the unit copies the token there.
    let copied = env("RUNTIME_DIRECTORY").map(|folder| Path::new(&folder).join("token"));
    credential
        .into_iter()
        .chain(copied)
        .chain([layout.token()])
        .find(|path| std::fs::File::open(path).is_ok())
        .map(TokenSource::File)
        .ok_or_else(|| TokenError::Missing.into())
}

#[cfg(test)]
pub(crate) mod tests;
