//! The arguments that commands share: the route to the controller, whom to trust on it, and the
//! token.

use std::{path::PathBuf, time::Duration};

use aio_protocol::time;
use clap::{Args, builder::BoolishValueParser};
use secrecy::{ExposeSecret, SecretString};

use super::command_line;
use crate::{failure::Failure, release::key, token};

/// The route to the controller, and whom to trust on it.
#[derive(Debug, Clone, Args)]
pub(super) struct RouteArgs {
    /// A PEM file of authorities to trust beside the operating system's; an installation copies it
    /// for the daemon
    #[arg(long, value_name = "FILE", env = "AIO_CA_FILE")]
    pub(super) ca_file: Option<PathBuf>,

    /// The proxy to the controller, http://HOST:PORT, instead of what config.toml, or HTTPS_PROXY
    /// and NO_PROXY say (which sudo keeps only when it is told to)
    #[arg(long, value_name = "URL", env = "AIO_PROXY", hide_env_values = true)]
    pub(super) proxy: Option<String>,

    /// Allow plain http and ws to other machines: for labs
    #[arg(long, env = "AIO_INSECURE_HTTP", value_parser = BoolishValueParser::new())]
    pub(super) insecure_http: bool,
}

impl RouteArgs {
    // An empty variable names nothing.
    pub(super) fn ca_file(&self) -> Option<PathBuf> {
        self.ca_file.clone().filter(|path| !path.as_os_str().is_empty())
    }

    pub(super) fn proxy(&self) -> Option<String> {
        self.proxy.clone().filter(|proxy| !proxy.is_empty())
    }
}

/// Who asks the controller, on which route, and which releases are believed.
#[derive(Debug, Clone, Args)]
pub(super) struct ControllerArgs {
    /// The node token. Other users of this machine may see arguments: prefer --token-file or
    /// AIO_NODE_TOKEN
    #[arg(long, value_name = "JWT", conflicts_with = "token_file", value_parser = |text: &str| Ok::<_, String>(SecretString::from(text)))]
    pub(super) token: Option<SecretString>,

    /// A file that holds the node token; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,

    #[command(flatten)]
    pub(super) route: RouteArgs,

    /// The minisign public key, or its file, that the release must be signed with, whatever the
    /// token says
    #[arg(long, value_name = "KEY", env = "AIO_RELEASE_KEY")]
    pub(super) release_key: Option<String>,
}

impl ControllerArgs {
    /// The token that was given. From here on the command line does not show it.
    pub(super) fn token(&self) -> Result<SecretString, Failure> {
        if let Some(token) = &self.token {
            command_line::hide(token.expose_secret());
        }
        let variable = std::env::var(token::VARIABLE).ok();
        token::obtain(self.token.as_ref(), self.token_file.as_deref(), variable, std::io::stdin())
    }

    pub(super) fn release_key(&self) -> Result<Option<String>, Failure> {
        let named = self.release_key.as_deref().filter(|key| !key.is_empty());
        named.map(key::read).transpose()
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    time::duration(text).ok_or_else(|| "say it as 90s, 2m or 1h".to_owned())
}
