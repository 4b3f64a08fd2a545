//! Why a TLS connection was not made, found in whatever error it is wrapped in, and said so that a
//! person knows what to do.

use std::{
    error::Error,
    io,
    time::{Duration, UNIX_EPOCH},
};

use aio_protocol::{error_code::ErrorCode, failure::Failure, time::Timestamp};
use rustls::{CertificateError, pki_types::UnixTime};

use super::pinned::OtherAuthority;

/// What TLS objects to, if it is TLS that `error` comes from. The message says what the other end did
/// or is; the caller puts what was tried in front of it.
pub fn explain(error: &(dyn Error + 'static)) -> Option<Failure> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(translate(found));
        }
        // An I/O error names as its source the source of what it wraps, and not that itself.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

fn translate(error: &rustls::Error) -> Failure {
    let failed = |words: String| Failure::new(ErrorCode::TlsFailed, words);
    match error {
        rustls::Error::InvalidCertificate(problem) => certificate(problem),
        rustls::Error::InvalidMessage(_) => {
            Failure::new(ErrorCode::ControllerInvalid, "what answers there does not speak TLS")
        }
        rustls::Error::AlertReceived(alert) => failed(format!("the other end refused TLS ({alert:?})")),
        error => failed(format!("TLS failed: {error}")),
    }
}

fn certificate(problem: &CertificateError) -> Failure {
    let failed = |words: String| Failure::new(ErrorCode::TlsFailed, words);
    match problem {
        CertificateError::Other(other) if other.0.downcast_ref::<OtherAuthority>().is_some() => {
            Failure::new(ErrorCode::CaMismatch, OtherAuthority.to_string())
        }
        CertificateError::ExpiredContext { time, not_after } => failed(format!(
            "its certificate ended at {}, and it is {} here: renew it, or set this machine's clock",
            date(*not_after),
            date(*time)
        )),
        CertificateError::NotValidYetContext { time, not_before } => failed(format!(
            "its certificate is not valid before {}, and it is {} here: set this machine's clock",
            date(*not_before),
            date(*time)
        )),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented = if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") };
            failed(format!("its certificate is for {presented}, and not for {}", expected.to_str()))
        }
        // A bad signature is that of another authority of the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => failed(
            "its certificate is of an authority that this machine does not know: --ca-file makes one known"
                .to_owned(),
        ),
        problem => failed(format!("its certificate cannot be trusted: {problem}")),
    }
}

fn date(time: UnixTime) -> Timestamp {
    (UNIX_EPOCH + Duration::from_secs(time.as_secs())).into()
}
