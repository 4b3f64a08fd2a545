//! The TLS configuration between connections: made once, used by every connection that trusts the
//! same, and made anew after TLS has failed, because what an operator then puts right are the files
//! that it was made of.

use std::sync::{Arc, Mutex, PoisonError};

use aio_host::tls::{self, Trust};
use aio_protocol::error_code::ErrorCode;
use rustls::ClientConfig;

use super::setback::{Patience, Setback};

/// The configuration of the last connection.
#[derive(Debug, Clone, Default)]
pub struct Trusted(Arc<Mutex<Option<Made>>>);

#[derive(Debug)]
struct Made {
    of: Trust,
    config: Arc<ClientConfig>,
}

impl Trusted {
    /// A configuration that trusts so. Reads files at most once, and not on the caller's thread.
    pub(super) async fn config(&self, trust: &Trust) -> Result<Arc<ClientConfig>, Setback> {
        if let Some(made) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner)
            && made.of == *trust
        {
            return Ok(made.config.clone());
        }
        let of = trust.clone();
        let made = tokio::task::spawn_blocking(move || tls::client_config(&of)).await;
        let config = match made {
            Ok(Ok(config)) => config,
            Ok(Err(error)) => return Err(Setback::failed(error.into(), Patience::Long)),
            Err(error) => return Err(Setback::new(ErrorCode::Internal, error.to_string())),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Made { of: trust.clone(), config: config.clone() });
        Ok(config)
    }

    /// The next connection reads the files again.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
