//! What an installation ships besides the release itself: the unit, the declaration of the daemon's
//! user, the documented configuration, and the modes of the files that it writes.

use aio_host::layout::{RECOVER_UNIT, UPDATE_SOCKET_UNIT, UPDATE_UNIT};

/// The unit: one copy for the installer and the Debian package.
pub(crate) const UNIT_TEXT: &str = include_str!("../../systemd/aio-worker.service");

/// The declaration of the daemon's user: one copy for the installer and the Debian package.
pub(crate) const DECLARATION: &str = include_str!("../../systemd/aio-worker.sysusers.conf");

/// The documented configuration: every key is there, as a comment.
pub(crate) const SAMPLE: &str = include_str!("../../packaging/config.toml");

/// The daemon's file in a release's folder.
pub(crate) const BINARY: &str = "aio-worker";

/// Of the release: everybody may run it; only root may change it.
pub(crate) const RELEASE_MODE: u32 = 0o755;

/// Of the configuration, which holds no secret, and which the daemon must read.
pub(crate) const CONFIG_MODE: u32 = 0o644;

/// Of the token, which is root's alone.
pub(crate) const TOKEN_MODE: u32 = 0o600;

/// Of the unit and the declaration.
pub(crate) const UNIT_MODE: u32 = 0o644;

/// The folder, in a release's folder, of the units that belong to it.
pub(crate) const UNITS: &str = "units";

/// The units of root's part of updates, which are on a machine that lets its controller update it.
pub(crate) const UPDATER_UNITS: [(&str, &str); 3] = [
    (UPDATE_SOCKET_UNIT, include_str!("../../systemd/aio-worker-update.socket")),
    (UPDATE_UNIT, include_str!("../../systemd/aio-worker-update.service")),
    (RECOVER_UNIT, include_str!("../../systemd/aio-worker-recover.service")),
];

/// Whether a release's file of this name is a unit that goes where systemd reads it.
pub(crate) fn is_unit(name: &str) -> bool {
    let rest = name
        .strip_prefix("aio-worker")
        .and_then(|rest| rest.strip_suffix(".service").or_else(|| rest.strip_suffix(".socket")));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}
