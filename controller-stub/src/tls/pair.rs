//! A certificate chain with its key: read from PEM files, checked to belong together, and looked at for what
//! a client will object to.

use std::{fs, io, os::unix::fs::MetadataExt, path::PathBuf, sync::Arc};

use aio_protocol::time::Timestamp;
use rustls::pki_types::TrustAnchor;
use rustls::{
    CertificateError, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier, verify_server_name},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
    server::ParsedCertificate,
    sign::CertifiedKey,
};

use super::{TlsError, provider};

/// A certificate that ends sooner than this is worth a warning: 14 days.
const SOON_SECS: u64 = 14 * 86_400;

/// Where a given pair lies.
#[derive(Debug, Clone)]
pub(super) struct PairFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// What changes when one of the two files does. A file that cannot be looked at has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp([Option<(u64, u64, i64, i64)>; 2]);

/// A chain and its key, which belong together.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) certified: Arc<CertifiedKey>,
}

impl PairFiles {
    pub(super) fn stamp(&self) -> Stamp {
        Stamp([&self.certificate, &self.key].map(|path| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
        }))
    }

    pub(super) fn load(&self) -> Result<Pair, TlsError> {
        let says = |path: &PathBuf, problem: String| TlsError::Content { path: path.clone(), problem };
        let (chain, key) = (super::read(&self.certificate)?, super::read(&self.key)?);
        let chain = CertificateDer::pem_slice_iter(&chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| says(&self.certificate, format!("is not PEM: {error}")))?;
        if chain.is_empty() {
            return Err(says(&self.certificate, "holds no certificate in PEM".into()));
        }
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| {
            let problem = match error {
                pem::Error::NoItemsFound => "holds no private key in PEM".into(),
                error => format!("is not PEM: {error}"),
            };
            says(&self.key, problem)
        })?;
        Pair::new(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => says(
                &self.key,
                format!("is not the key of the certificate in {}", self.certificate.display()),
            ),
            rustls::Error::InvalidCertificate(error) => {
                says(&self.certificate, format!("holds no usable certificate: {error}"))
            }
            error => says(&self.key, format!("holds no usable key: {error}")),
        })
    }
}

impl Pair {
    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let certified = CertifiedKey::from_der(chain, key, &provider())?;
        Ok(Self { certified: Arc::new(certified) })
    }

    /// What clients will object to, in words.
    pub(super) fn troubles(&self, now: Timestamp, public_name: Option<&str>) -> Vec<String> {
        let mut troubles = Vec::new();
        let Some(leaf) = self.certified.cert.first() else { return troubles };
        let seconds = u64::try_from(now.as_millis() / 1000).unwrap_or_default();
        match (validity(leaf, seconds), validity(leaf, seconds + SOON_SECS)) {
            (Some(CertificateError::ExpiredContext { not_after, .. }), _) => {
                troubles.push(format!("the TLS certificate ended at {}: nodes refuse it", date(not_after)));
            }
            (Some(CertificateError::NotValidYetContext { not_before, .. }), _) => {
                troubles.push(format!(
                    "the TLS certificate is not valid before {}: nodes refuse it",
                    date(not_before)
                ));
            }
            (_, Some(CertificateError::ExpiredContext { not_after, .. })) => {
                troubles.push(format!("the TLS certificate ends at {}", date(not_after)));
            }
            _ => {}
        }
        if let Some(name) = public_name
            && let Ok(server) = ServerName::try_from(name)
            && let Ok(parsed) = ParsedCertificate::try_from(leaf)
            && verify_server_name(&parsed, &server).is_err()
        {
            troubles.push(format!(
                "the TLS certificate is not for {name}, the host of PUBLIC_URL: nodes refuse it"
            ));
        }
        troubles
    }
}

/// What is wrong with the certificate at that second. Its dates are checked before who signed it,
/// so any anchor will do.
fn validity(leaf: &CertificateDer<'_>, seconds: u64) -> Option<CertificateError> {
    let mut roots = RootCertStore::empty();
    roots.roots.push(TrustAnchor {
        subject: (&[][..]).into(),
        subject_public_key_info: (&[][..]).into(),
        name_constraints: None,
    });
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().ok()?;
    let name = ServerName::try_from("localhost").ok()?;
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    match verifier.verify_server_cert(leaf, &[], &name, &[], now) {
        Err(rustls::Error::InvalidCertificate(error)) => Some(error),
        _ => None,
    }
}

fn date(time: UnixTime) -> Timestamp {
    Timestamp::from_millis(i64::try_from(time.as_secs().saturating_mul(1000)).unwrap_or(i64::MAX))
}

/// For the authority, which keeps its own pair.
pub(super) fn unreadable(tried: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> TlsError {
    move |source| TlsError::File { tried, path: path.to_owned(), source }
}
