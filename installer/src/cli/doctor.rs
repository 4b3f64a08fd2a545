//! `doctor`, as far as it is the installer's: which token and which route are looked at.

use std::path::PathBuf;

use aio_host::{layout::Layout, systemd::Systemd};
use aio_protocol::error_code::ErrorCode;
use clap::Args;

use super::{answer::Running, arguments::RouteArgs};
use crate::{
    doctor::{self, Examination, Finding},
    failure::Failure,
    token,
};

/// Looks at what the worker needs on this machine, and changes nothing.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// A file that holds the node token; `-` is standard input [default: AIO_NODE_TOKEN, else the
    /// installed one]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    route: RouteArgs,
}

/// Makes all checks but those of the GPUs.
pub fn examine(args: DoctorArgs) -> Running<Result<Vec<Finding>, Failure>> {
    Box::pin(examined(args))
}

async fn examined(args: DoctorArgs) -> Result<Vec<Finding>, Failure> {
    let variable = std::env::var(token::VARIABLE).ok();
    let token = match token::obtain(None, args.token_file.as_deref(), variable, std::io::stdin()) {
        Ok(token) => Some(token),
        Err(failure) if failure.code == ErrorCode::TokenMissing => None,
        Err(failure) => return Err(failure),
    };
    let examination = Examination {
        layout: Layout::default(),
        root: rustix::process::geteuid().is_root(),
        token,
        ca_file: args.route.ca_file(),
        proxy: args.route.proxy(),
        insecure_http: args.route.insecure_http,
    };
    Ok(match Systemd::connect().await {
        Ok(systemd) => doctor::examine(&examination, Ok(&systemd)).await,
        Err(error) => doctor::examine(&examination, Err(error)).await,
    })
}
