//! What `doctor` is asked to look at.

use std::path::PathBuf;

use aio_host::layout::Layout;
use secrecy::SecretString;

/// What is looked at.
#[derive(Debug)]
pub struct Examination {
    /// Where things lie.
    pub layout: Layout,
    /// Whether root asks.
    pub root: bool,
    /// The token that was given, if any; else the installed one counts, where it can be read.
    pub token: Option<SecretString>,
    /// Authorities (PEM) beside the operating system's.
    pub ca_file: Option<PathBuf>,
    /// The proxy that was named.
    pub proxy: Option<String>,
    /// Whether plain `http` to other machines is allowed.
    pub insecure_http: bool,
}
