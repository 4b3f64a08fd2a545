//! This very machine, for commands that change it, and the signals that stop them.

use aio_host::{layout::Layout, systemd::Systemd};
use aio_protocol::{error_code::ErrorCode, release::Platform};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    failure::Failure,
    machine::{accounts::SystemAccounts, host::Host, service_log::Journald},
    request::Interrupt,
};

pub(super) async fn this_machine() -> Result<Host, Failure> {
    let platform = check_machine(rustix::process::geteuid().is_root())?;
    Ok(Host {
        layout: Layout::default(),
        systemd: Systemd::connect().await?,
        accounts: Box::new(SystemAccounts::default()),
        service_log: Box::new(Journald),
        platform,
    })
}

fn check_machine(root: bool) -> Result<Platform, Failure> {
    if !root {
        return Err(Failure::new(ErrorCode::NotRoot, "installing and uninstalling need root"));
    }
    let (os, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    Platform::of_architecture(architecture).filter(|_| os == "linux").ok_or_else(|| {
        let message = format!("this machine runs {os} on {architecture}, for which there is no release");
        Failure::new(ErrorCode::PlatformUnsupported, message)
    })
}

pub(super) fn interrupted() -> Result<Interrupt<'static>, Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(ErrorCode::Internal, format!("could not listen to signals: {error}"))
        })
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(Box::pin(async move {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
            _ = hangup.recv() => "SIGHUP",
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_root_is_told_so() {
        assert_eq!(check_machine(false).unwrap_err().code, ErrorCode::NotRoot);
        assert!(check_machine(true).is_ok());
    }
}
