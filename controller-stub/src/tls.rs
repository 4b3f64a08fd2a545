//! The controller's own TLS: which certificate is served, and when another takes its place. A given pair of
//! files is read again when it changes, and a broken new pair changes nothing; the certificate of the private
//! authority is made anew before it ends. How bytes are encrypted is `stream`'s and
//! rustls's business, who connects the listener's.

mod authority;
mod pair;
mod served;
mod stream;

use std::{path::Path, sync::Arc, time::Duration};

use aio_protocol::{error_code::ErrorCode, time::Timestamp};
use rustls::{ClientConfig, ServerConfig, server::NoServerSessionStorage};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{clock, config::Config};
pub(crate) use authority::{Authority, Published};
use pair::{PairFiles, Stamp};
use served::{Exactly, Served};
pub(crate) use stream::TlsStream;

/// How often the files' dates and the clock are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// How often an operator hears of a certificate that will not do.
const CHECKUP: Duration = Duration::from_secs(12 * 3600);

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot {tried} {path}")]
    File {
        /// What was tried on it.
        tried: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} {problem}")]
    Content {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Making(#[from] rcgen::Error),
    /// rustls refuses.
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
}

impl TlsError {
    /// The catalogue's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::File { .. } => ErrorCode::FileFailed,
            Self::Content { .. } => ErrorCode::CertificateInvalid,
            Self::Making(_) | Self::Setup(_) => ErrorCode::Internal,
        }
    }
}

/// Reads a file of certificates or of a key.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File { tried: "read", path: path.to_owned(), source })
}

/// Whether a certificate's chain and a key can be read and belong together.
pub(crate) fn check_pair(certificate: &Path, key: &Path) -> Result<(), TlsError> {
    PairFiles { certificate: certificate.to_owned(), key: key.to_owned() }.load().map(drop)
}

/// Where certificates come from.
enum Source {
    Files { files: PairFiles, loaded: Stamp },
    Authority { authority: Arc<Authority>, names: Vec<String>, renew_at: Timestamp },
}

/// The certificate that is served at any moment.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    served: Arc<Served>,
    public_name: Option<String>,
}

impl Certificate {
    /// What clients object to, or will within 14 days, in words.
    pub(crate) fn troubles(&self, now: Timestamp) -> Vec<String> {
        self.served.current().troubles(now, self.public_name.as_deref())
    }
}

/// What is served, and what keeps it so.
pub(crate) struct Tls {
    source: Source,
    served: Arc<Served>,
    /// The name that nodes know the controller by, when it was said.
    public_name: Option<String>,
}

impl Tls {
    /// What `config` asks for; none where it asks for plain HTTP.
    pub(crate) fn open(config: &Config) -> Result<Option<Self>, TlsError> {
        let public_name = config.public_url.as_ref().and_then(|url| url.host_str()).map(bare);
        let (source, pair) = if let Some(files) = &config.tls_files {
            let files = PairFiles { certificate: files.0.clone(), key: files.1.clone() };
            let loaded = files.stamp();
            let pair = files.load()?;
            (Source::Files { files, loaded }, pair)
        } else if config.tls_self_signed {
            let authority = Arc::new(Authority::open(&config.data_dir)?);
            let names = names(public_name.as_deref(), config.listen.ip());
            let (pair, renew_at) = authority.issue(&names, clock::now())?;
            (Source::Authority { authority, names, renew_at }, pair)
        } else {
            return Ok(None);
        };
        let tls = Self { source, served: Arc::new(Served::new(pair)), public_name };
        tls.check_up();
        Ok(Some(tls))
    }

    /// The private authority's certificate, where there is one.
    pub(crate) fn published(&self) -> Option<Published> {
        match &self.source {
            Source::Authority { authority, .. } => Some(authority.published()),
            Source::Files { .. } => None,
        }
    }

    /// What clients will object to, for whoever looks.
    pub(crate) fn watched(&self) -> Certificate {
        Certificate { served: self.served.clone(), public_name: self.public_name.clone() }
    }

    /// For the listener. Nothing is kept of a connection after it: a worker that comes back proves
    /// itself anew.
    pub(crate) fn server_config(&self) -> Result<ServerConfig, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.served.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// For this very program to reach itself: trusts exactly the certificate that it serves,
    /// whatever name that is for.
    pub(crate) fn own_client(&self) -> Result<ClientConfig, TlsError> {
        Ok(ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Exactly::new(self.served.clone(), provider())))
            .with_no_client_auth())
    }

    /// Puts new certificates in place as they come, until `stop`. SIGHUP asks for it at once.
    pub(crate) async fn keep_fresh(mut self, stop: CancellationToken) {
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => Some(hangups),
            Err(error) => {
                tracing::warn!(%error, "SIGHUP cannot be listened to; certificates are reloaded when their files change");
                None
            }
        };
        let (mut look, mut checkup) = (interval(LOOK), interval(CHECKUP));
        for ticks in [&mut look, &mut checkup] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The first one is immediate, and `open` has just looked.
            ticks.reset();
        }
        let mut seen = None;
        loop {
            let asked = async {
                match &mut hangups {
                    Some(hangups) => hangups.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = checkup.tick() => self.check_up(),
                _ = look.tick() => self.look(&mut seen),
                _ = asked => self.reload(),
            }
        }
    }

    /// Reloads what has changed and has then stayed the same for one look: two files are never
    /// replaced at the same moment.
    fn look(&mut self, seen: &mut Option<Stamp>) {
        match &self.source {
            Source::Files { files, loaded } => {
                let now = files.stamp();
                let settled = seen.replace(now.clone()).as_ref() == Some(&now);
                if settled && now != *loaded {
                    self.reload();
                }
            }
            Source::Authority { renew_at, .. } => {
                if clock::now() >= *renew_at {
                    self.reload();
                }
            }
        }
    }

    fn reload(&mut self) {
        let fresh = match &mut self.source {
            Source::Files { files, loaded } => {
                *loaded = files.stamp();
                files.load()
            }
            Source::Authority { authority, names, renew_at } => {
                authority.issue(names, clock::now()).map(|(pair, next)| {
                    *renew_at = next;
                    pair
                })
            }
        };
        match fresh {
            Ok(pair) => {
                self.served.replace(pair);
                tracing::info!("another TLS certificate is served from now on");
                self.check_up();
            }
            Err(error) => tracing::warn!(
                code = %error.code(),
                error = %chain(&error),
                "the new TLS certificate cannot be used; the one before stays in place"
            ),
        }
    }

    fn check_up(&self) {
        for trouble in self.served.current().troubles(clock::now(), self.public_name.as_deref()) {
            tracing::warn!("{trouble}");
        }
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A host as certificates write it: IPv6 without its brackets.
fn bare(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// Every name that the controller may be reached by: the public one, the address that it listens
/// on, and this machine's own.
fn names(public: Option<&str>, listening: std::net::IpAddr) -> Vec<String> {
    let listening = (!listening.is_unspecified()).then(|| listening.to_string());
    let mut names: Vec<String> = public.map(str::to_owned).into_iter().chain(listening).collect();
    for own in ["localhost", "127.0.0.1", "::1"] {
        if !names.iter().any(|name| name == own) {
            names.push(own.to_owned());
        }
    }
    names.dedup();
    names
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
