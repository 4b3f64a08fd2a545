//! The controller's private authority: made once in the data folder, its owner's alone, and the
//! certificates that it issues to the controller itself. Those live in memory and are made anew at
//! every start and before they end, so only the authority must be kept.

use std::{path::Path, sync::Arc, time::Duration};

use aio_protocol::{release::Checksum, time::Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime, pem::PemObject},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    TlsError,
    pair::{Pair, unreadable},
};
use crate::{clock, secrets};

/// Its file in the data folder: certificate and key together, so that there is never one without the other.
const FILE: &str = "tls/authority.pem";

/// The authority outlives every machine that trusts it: 30 years.
const AUTHORITY_DAYS: i64 = 30 * 365;
/// A certificate of the controller: 90 days, the last third of which it is not used.
const LEAF_DAYS: i64 = 90;
const RENEW_AFTER_DAYS: i64 = 60;
/// Clocks of nodes may be behind by as much.
const BEFORE_DAYS: i64 = 7;

const DAY_MILLIS: i64 = 86_400_000;

/// What nodes are told of the authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    /// The SHA-256 of its certificate (DER).
    pub(crate) fingerprint: Checksum,
    /// Its certificate in PEM.
    pub(crate) pem: String,
}

/// The private authority. It cannot be printed: it holds a key.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    published: Published,
}

impl Authority {
    /// Whether the data folder has an authority.
    pub(crate) fn exists(data_dir: &Path) -> bool {
        data_dir.join(FILE).exists()
    }

    /// Reads the authority of the data folder, or makes it. Two processes that do so at once get the same.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, TlsError> {
        let path = data_dir.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::read(&path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                secrets::make(&path, &made(clock::now())?).map_err(unreadable("write", &path))?;
                let text = std::fs::read_to_string(&path).map_err(unreadable("read", &path))?;
                tracing::info!(path = %path.display(), "the controller made itself a private authority for TLS");
                Self::read(&path, &text)
            }
            Err(source) => Err(unreadable("read", &path)(source)),
        }
    }

    fn read(path: &Path, text: &str) -> Result<Self, TlsError> {
        let broken = |problem: &str| TlsError::Content {
            path: path.to_owned(),
            problem: format!(
                "{problem}; restore it, or delete it to have another made, which no token of today will trust"
            ),
        };
        let certificate = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|_| broken("holds no certificate of an authority"))?;
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .ok()
            .and_then(|key| KeyPair::try_from(&key).ok())
            .ok_or_else(|| broken("holds no key of an authority"))?;
        let fingerprint = Checksum::from_hex(&hex::encode(Sha256::digest(&certificate)))
            .map_err(|error| broken(&error.to_string()))?;
        let pem = text
            .split_inclusive("-----END CERTIFICATE-----\n")
            .next()
            .ok_or_else(|| broken("holds no certificate of an authority"))?
            .to_owned();
        let issuer = Issuer::new(params(clock::now()), key);
        let authority = Self { issuer, certificate, published: Published { fingerprint, pem } };
        // A key that is not the certificate's would be found by every node and by nobody here.
        authority.check().map_err(|_| broken("holds a certificate and a key that do not belong together"))?;
        Ok(authority)
    }

    pub(crate) fn published(&self) -> Published {
        self.published.clone()
    }

    /// A certificate for `names`, with the authority behind it in the chain so that a pin can be
    /// checked from the handshake alone; and when to make the next.
    pub(super) fn issue(&self, names: &[String], now: Timestamp) -> Result<(Pair, Timestamp), TlsError> {
        let (leaf, key) = self.leaf(names, now)?;
        let renew_at = Timestamp::from_millis(now.as_millis() + RENEW_AFTER_DAYS * DAY_MILLIS);
        Ok((Pair::new(vec![leaf, self.certificate.clone()], key)?, renew_at))
    }

    fn leaf(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), TlsError> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = named("AIWM controller");
        date(&mut params, now, LEAF_DAYS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok((leaf.der().clone(), key.into()))
    }

    /// Whether a node that pins this authority would trust what it issues.
    fn check(&self) -> Result<(), rustls::Error> {
        let general = |error: &dyn std::fmt::Display| rustls::Error::General(error.to_string());
        let (leaf, _) =
            self.leaf(&["localhost".to_owned()], clock::now()).map_err(|error| general(&error))?;
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let name = ServerName::try_from("localhost").map_err(|error| general(&error))?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), super::provider())
            .build()
            .map_err(|error| general(&error))?
            .verify_server_cert(&leaf, &[], &name, &[], UnixTime::now())
            .map(drop)
    }
}

/// A new authority's file.
fn made(now: Timestamp) -> Result<String, TlsError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params(now).self_signed(&key)?;
    Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
}

/// The issuer's name and usages are the same in every version: the certificates that it issues repeat them.
fn params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("AIWM controller authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    date(&mut params, now, AUTHORITY_DAYS);
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Valid from a little before `now` for so many days.
fn date(params: &mut CertificateParams, now: Timestamp, days: i64) {
    let day = |offset: i64| {
        let millis = now.as_millis().saturating_add(offset * DAY_MILLIS);
        date_time_ymd(1970, 1, 1) + Duration::from_millis(u64::try_from(millis).unwrap_or_default())
    };
    (params.not_before, params.not_after) = (day(-BEFORE_DAYS), day(days));
}
