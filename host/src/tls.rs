//! Whom this machine trusts over TLS: for a controller whose token names its authority, that
//! authority alone; for all others the operating system's roots, and the operator's own beside
//! them. One provider and one configuration for HTTP and WebSocket.

mod explain;
mod pinned;
mod store;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use aio_protocol::{error_code::ErrorCode, failure::Failure, release::Checksum};
use rustls::{
    ClientConfig,
    client::danger::ServerCertVerifier,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

pub use explain::explain;
use pinned::Pinned;
pub use store::unusable_files;

/// Whom to trust.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// The controller's own authority.
    pub pin: Option<PinnedAuthority>,
    /// A PEM file of authorities beside the operating system's.
    pub ca_file: Option<PathBuf>,
}

/// Hosts that are trusted through one authority and no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedAuthority {
    /// The SHA-256 of the authority's certificate (DER).
    pub fingerprint: Checksum,
    /// Names or addresses, as URLs write them.
    pub hosts: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The operator's file cannot be read.
    #[error("cannot read the authorities in {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The operator's file holds something else.
    #[error("{path} does not hold certificates in PEM: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The operating system's roots cannot be used.
    #[error("this machine's own authorities cannot be used (is the package ca-certificates installed?)")]
    Roots(#[source] rustls::Error),
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        let code = match error {
            TlsError::Unreadable { .. } => ErrorCode::FileFailed,
            TlsError::Content { .. } => ErrorCode::ConfigInvalid,
            TlsError::Roots(_) => ErrorCode::TlsFailed,
        };
        Self::caused(code, &error)
    }
}

/// What logs which files of the operating system's store it passes over, by number alone. Logged
/// from ERROR on; `unusable_files` names them.
pub const STORE_LOG_TARGET: &str = "rustls_platform_verifier";

/// Makes the process's one cryptography provider known. To be called first in every `main` and
/// test; again is harmless.
pub fn install_provider() {
    // It fails only when one is installed already, and there is only this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A client configuration that trusts so. Reads files: not for the daemon's loop.
pub fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let extra = trust.ca_file.as_deref().map(authorities).transpose()?.unwrap_or_default();
    let verifier: Arc<dyn ServerCertVerifier> = match &trust.pin {
        Some(pin) => Arc::new(Pinned::new(pin.clone(), extra, provider.clone())),
        None => Arc::new(platform(extra, provider.clone()).map_err(TlsError::Roots)?),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Roots)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn platform(
    extra: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Verifier, rustls::Error> {
    Verifier::new_with_extra_roots(extra, provider)
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes =
        std::fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })?;
    let content = |problem: String| TlsError::Content { path: path.to_owned(), problem };
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| content(error.to_string()))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in &found {
        roots.add(certificate.clone()).map_err(|error| content(error.to_string()))?;
    }
    if found.is_empty() { Err(content("there is none".to_owned())) } else { Ok(found) }
}

#[cfg(test)]
mod tests;
