//! Whom this machine trusts over TLS: the operating system's roots. One provider and one configuration for HTTP and WebSocket.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_platform_verifier::ConfigVerifierExt;

/// Makes the process's one cryptography provider known. To be called first in every `main` and test; again is harmless.
pub fn install_provider() {
    // It fails only when one is installed already, and there is only this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A client configuration that trusts what the operating system trusts.
pub fn client_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    ClientConfig::with_platform_verifier().map(Arc::new)
}
