//! Where things lie on a node. One place knows the paths; the units in `systemd/` repeat those that
//! they need.

use std::path::{Path, PathBuf};

use aio_protocol::{ids::NodeId, release::ReleaseVersion};

/// The service's unit.
pub const UNIT: &str = "aio-worker.service";

/// The socket's unit, the service's behind it, and the one that takes up at boot what was cut off.
pub const UPDATE_SOCKET_UNIT: &str = "aio-worker-update.socket";
/// See [`UPDATE_SOCKET_UNIT`].
pub const UPDATE_UNIT: &str = "aio-worker-update.service";
/// See [`UPDATE_SOCKET_UNIT`].
pub const RECOVER_UNIT: &str = "aio-worker-recover.service";

/// The unit in which a new program tries itself.
pub const REHEARSAL_UNIT: &str = "aio-worker-rehearsal.service";

/// The system user that the daemon runs as.
pub const USER: &str = "aio-worker";

/// The paths of an installation under one root: `/` on a machine, a temporary folder in a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Default for Layout {
    fn default() -> Self {
        Self::under("/")
    }
}

impl Layout {
    /// The layout under `root`.
    pub fn under(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The folder of all releases.
    pub fn releases(&self) -> PathBuf {
        self.at("usr/local/lib/aio-worker")
    }

    /// The folder of one release.
    pub fn release(&self, version: &ReleaseVersion) -> PathBuf {
        self.releases().join(version.to_string())
    }

    /// The link that says which release runs.
    pub fn current(&self) -> PathBuf {
        self.releases().join("current")
    }

    /// The command on everybody's path: a link through `current`.
    pub fn command(&self) -> PathBuf {
        self.at("usr/local/bin/aio-worker")
    }

    /// The configuration's folder.
    pub fn config_dir(&self) -> PathBuf {
        self.at("etc/aio-worker")
    }

    /// The configuration, readable by everybody.
    pub fn config(&self) -> PathBuf {
        self.config_dir().join("config.toml")
    }

    /// The authorities that the operator made known, where there are any.
    pub fn ca_file(&self) -> PathBuf {
        self.config_dir().join("ca.pem")
    }

    /// The node token, readable by root alone; the daemon gets it as a systemd credential.
    pub fn token(&self) -> PathBuf {
        self.config_dir().join("token")
    }

    /// The service's unit file.
    pub fn unit(&self) -> PathBuf {
        self.at("etc/systemd/system").join(UNIT)
    }

    /// The declaration of the daemon's user.
    pub fn sysusers(&self) -> PathBuf {
        self.at("etc/sysusers.d/aio-worker.conf")
    }

    /// The installer's own folder, root's alone: the daemon's user must not be able to write what
    /// root will act on.
    pub fn journal_dir(&self) -> PathBuf {
        self.at("var/lib/aio-installer")
    }

    /// Secrets that AIWM has given once, which outlive an installation that is undone: one file for
    /// each node.
    pub fn secrets(&self) -> PathBuf {
        self.journal_dir().join("secrets")
    }

    /// The secret of this node.
    pub fn secret_of(&self, node: &NodeId) -> PathBuf {
        self.secrets().join(node.as_str())
    }

    /// Failures that the controller could not be told, for the next installation to tell.
    pub fn undelivered(&self) -> PathBuf {
        self.journal_dir().join(UNDELIVERED)
    }

    /// The unit file of a Debian package, where there is one: below `/usr/lib`, or `/lib` on
    /// systems that keep the two apart.
    pub fn packaged_unit(&self) -> Option<PathBuf> {
        let places = ["usr/lib/systemd/system", "lib/systemd/system"];
        places.into_iter().map(|place| self.at(place).join(UNIT)).find(|path| path.is_file())
    }

    /// The command of a Debian package.
    pub fn packaged_command(&self) -> PathBuf {
        self.at("usr/bin/aio-worker")
    }

    /// Whether a Debian package has brought program and unit.
    pub fn is_packaged(&self) -> bool {
        self.packaged_unit().is_some() && self.packaged_command().is_file()
    }

    /// The daemon's state.
    pub fn state_dir(&self) -> PathBuf {
        self.at("var/lib/aio-worker")
    }

    /// The link that says which release watches over an update, and undoes it.
    pub fn updater(&self) -> PathBuf {
        self.releases().join("updater")
    }

    /// A release that was verified and has not yet run.
    pub fn staged_release(&self) -> PathBuf {
        self.releases().join(".staged")
    }

    /// The folder of systemd's units that this machine's administration has put there.
    pub fn units(&self) -> PathBuf {
        self.at("etc/systemd/system")
    }

    /// The keys that releases must be signed with: root's, one file each.
    pub fn release_keys(&self) -> PathBuf {
        self.config_dir().join("release-keys")
    }

    /// What root has seen of releases, which never goes back.
    pub fn trust(&self) -> PathBuf {
        self.journal_dir().join("trust.json")
    }

    /// Where root says how an update stands, for everybody to read.
    pub fn update_status(&self) -> PathBuf {
        self.at("var/lib/aio-worker-update").join(UPDATE_STATUS)
    }

    /// What lives as long as root works on an update.
    pub fn update_runtime_dir(&self) -> PathBuf {
        self.at("run/aio-worker-update")
    }

    /// Root's socket for the daemon's requests.
    pub fn update_socket(&self) -> PathBuf {
        self.at("run/aio-worker-update.sock")
    }

    /// The unit of a rehearsal, which is gone after the next boot.
    pub fn rehearsal_unit(&self) -> PathBuf {
        self.at("run/systemd/system").join(REHEARSAL_UNIT)
    }

    /// Where the daemon puts a release for root to look at, one folder for each update.
    pub fn update_inbox(&self) -> PathBuf {
        self.state_dir().join(UPDATE_INBOX)
    }

    /// What lives as long as the daemon runs.
    pub fn runtime_dir(&self) -> PathBuf {
        self.at("run/aio-worker")
    }

    /// The daemon's read-only status socket.
    pub fn status_socket(&self) -> PathBuf {
        self.runtime_dir().join(STATUS_SOCKET)
    }
}

/// The name, in the state folder, of a token that the controller gave in place of the installed
/// one, and that it has welcomed. The token is the file's first line.
pub const KEPT_TOKEN: &str = "token";

/// The name, in the state folder, of a token that was offered and not yet welcomed.
pub const CANDIDATE_TOKEN: &str = "token.candidate";

/// The folder's name, in the installer's and in the state folder, of failures that the controller
/// could not be told.
pub const UNDELIVERED: &str = "undelivered";

/// The status socket's name in the runtime folder.
pub const STATUS_SOCKET: &str = "status.sock";

/// The folder's name, in the state folder, of releases that the daemon has brought.
pub const UPDATE_INBOX: &str = "update";

/// The name of root's word on updates.
pub const UPDATE_STATUS: &str = "status.json";
