//! Trust in one authority for some hosts: among the certificates that the other end presents, the
//! one with the pinned fingerprint becomes the only anchor, and then name, dates and chain are
//! verified as ever. All other hosts are the operating system's to judge.

use std::sync::{Arc, OnceLock};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use rustls_platform_verifier::Verifier;
use sha2::{Digest, Sha256};

use super::{PinnedAuthority, platform};

/// What was presented does not hold the authority that the token names.
#[derive(Debug, thiserror::Error)]
#[error("it presented another authority than the token names")]
pub(super) struct OtherAuthority;

#[derive(Debug)]
pub(super) struct Pinned {
    pin: PinnedAuthority,
    extra: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
    /// The operating system's roots, read when the first other host is met: a daemon meets none,
    /// and needs no room for them.
    others: OnceLock<Result<Verifier, Error>>,
}

impl Pinned {
    pub(super) fn new(
        pin: PinnedAuthority,
        extra: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self { pin, extra, provider, others: OnceLock::new() }
    }

    fn covers(&self, name: &ServerName<'_>) -> bool {
        let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
        self.pin.hosts.iter().any(|host| match ServerName::try_from(bare(host)) {
            Ok(host) => host == *name,
            Err(_) => false,
        })
    }

    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        let digest = Sha256::digest(certificate);
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>() == self.pin.fingerprint.hex()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.covers(server_name) {
            let others = self.others.get_or_init(|| platform(self.extra.clone(), self.provider.clone()));
            let others = others.as_ref().map_err(Clone::clone)?;
            return others.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        let authority = intermediates
            .iter()
            .find(|certificate| self.is_pinned(certificate))
            .ok_or_else(|| CertificateError::Other(OtherError(Arc::new(OtherAuthority))))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
