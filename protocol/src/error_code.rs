//! The one catalogue of errors that users see: a stable code, the exit status of a command that
//! ends with it, what it means, and the cure. Codes are added, never renamed.
//! `docs/troubleshooting.md` has a section for each.

use std::{fmt, io::ErrorKind};

macro_rules! catalogue {
    ($($variant:ident $code:literal, exit $exit:literal, $meaning:literal, cure $cure:literal;)*) => {
        /// A stable error code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $(#[doc = $meaning] $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the catalogue's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code as people and programs read it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The exit status of a command that ends with this error (numbers of `sysexits.h`
            /// where one fits).
            pub fn exit_status(self) -> u8 {
                match self { $(Self::$variant => $exit,)* }
            }

            /// What the code means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// What to do about it, in one sentence.
            pub fn cure(self) -> &'static str {
                match self { $(Self::$variant => $cure,)* }
            }
        }
    };
}

catalogue! {
    Usage "USAGE", exit 2, "The command line is not understood.",
        cure "Run the command with --help.";
    NotRoot "NOT_ROOT", exit 77, "The command needs root's rights and was not run as root.",
        cure "Run it again with sudo.";

    TokenMissing "TOKEN_MISSING", exit 78, "No node token was given.",
        cure "Pass --token, --token-file or AIO_NODE_TOKEN; the controller makes one with POST /nodes/{id}/token.";
    TokenInvalid "TOKEN_INVALID", exit 78, "The text is not a node token, or the controller did not sign it.",
        cure "Copy the whole token again from the controller that the node is registered with.";
    TokenExpired "TOKEN_EXPIRED", exit 78, "The token's life is over.",
        cure "Make a new token on the controller; if it should still be valid, check this machine's clock.";
    TokenRevoked "TOKEN_REVOKED", exit 78, "The controller has revoked the token.",
        cure "Make a new token on the controller.";
    TokenForeign "TOKEN_FOREIGN", exit 78, "The token belongs to another node.",
        cure "Use the token that was made for this node.";
    IdentityConflict "IDENTITY_CONFLICT", exit 78, "This machine is already installed as another node.",
        cure "Use that node's token; if it shall become another node, say --replace-identity, or uninstall the worker first.";
    DowngradeRefused "DOWNGRADE_REFUSED", exit 78, "A newer version is installed than the controller offers.",
        cure "Let the controller offer the newer version; if the older one is meant, say --allow-downgrade.";
    NodeNotFound "NODE_NOT_FOUND", exit 78, "The controller does not know the node.",
        cure "Register the node on this controller and use the token that it makes.";
    NodeInactive "NODE_INACTIVE", exit 78, "The node was decommissioned, which is final.",
        cure "Register the machine as a new node.";
    NodeSuspended "NODE_SUSPENDED", exit 78, "AIWM lets the node take no part: it is inactive or banned there.",
        cure "Activate the node in AIWM; its worker then comes back by itself.";
    SetupTokenRefused "SETUP_TOKEN_REFUSED", exit 78, "AIWM does not take the setup token: it is used, superseded, ended or not its own.",
        cure "While the node is pending, ask AIWM for its setup guide again and use that token; if its secret was lost, put the node into maintenance, delete it and make a new one.";
    SecretRefused "SECRET_REFUSED", exit 78, "AIWM does not take the node's secret.",
        cure "If somebody has regenerated it, set the new one on the node: aio-worker credentials set; if the node is gone, make a new one and install with its setup token.";
    NodeSuperseded "NODE_SUPERSEDED", exit 78, "Another worker connected as this node and took its place.",
        cure "Find the other machine (a cloned disk?) and give one of the two a node and a token of its own.";

    ConfigInvalid "CONFIG_INVALID", exit 78, "A configuration file or variable holds something impossible.",
        cure "Correct the place that the message names; the sample of config.toml (worker) and .env.example (controller) document every key.";
    SecretExposed "SECRET_EXPOSED", exit 78, "A file with a secret can be read by every user of this machine.",
        cure "chmod o-r the file that the message names (0600, or 0640 for a group that may); if others use this machine, replace the secret, too.";
    InsecureUrl "INSECURE_URL", exit 78, "A URL is plain http or ws and its host is not this machine.",
        cure "Serve the controller over TLS; in a lab, say --insecure-http.";
    InsecureListen "INSECURE_LISTEN", exit 78, "The controller would serve plain HTTP to other machines.",
        cure "Give --tls-cert and --tls-key, or --tls-self-signed; behind a proxy that ends TLS, listen on a loopback address; in a lab, say --insecure-http.";
    DoubleExposed "DOUBLE_EXPOSED", exit 78, "The double's faults would be open to other machines.",
        cure "Listen on a loopback address (--listen 127.0.0.1:3305), or leave --double out.";
    CertificateInvalid "CERTIFICATE_INVALID", exit 78, "A file of TLS certificates or keys does not hold what it should.",
        cure "The message names the file; the certificate file holds the chain in PEM, the server's own first, and the key file that one's key.";

    PlatformUnsupported "PLATFORM_UNSUPPORTED", exit 69, "There is no release for this processor or operating system.",
        cure "Install on Linux on amd64.";
    SystemdOutdated "SYSTEMD_OUTDATED", exit 69, "systemd is older than the worker's unit needs.",
        cure "Bring the machine to a system with systemd 247 or newer, for instance Ubuntu 22.04.";
    SystemUntested "SYSTEM_UNTESTED", exit 69, "This is not one of the systems that releases are tested on.",
        cure "Install on Ubuntu 22.04, 24.04 or 26.04 or Debian 11, 12 or 13; on another system with systemd 247 or newer, say --force-os.";
    ClockSkewed "CLOCK_SKEWED", exit 69, "The clocks of this machine and of the controller differ by more than 5 minutes.",
        cure "Set this machine's clock, best by systemd-timesyncd or chrony; if it is right, set the controller's.";
    SystemdMissing "SYSTEMD_MISSING", exit 69, "The machine was not booted with systemd.",
        cure "Install on a machine whose init is systemd 247 or newer; in a container, boot systemd as PID 1.";
    DbusUnreachable "DBUS_UNREACHABLE", exit 69, "systemd's manager does not answer on D-Bus.",
        cure "Check that dbus.service runs: systemctl status dbus.";
    UnitMasked "UNIT_MASKED", exit 78, "An admin has masked aio-worker.service.",
        cure "systemctl unmask aio-worker.service (for a mask until the next boot: systemctl unmask --runtime aio-worker.service), then install again.";
    PackageConflict "PACKAGE_CONFLICT", exit 78, "aio-worker is on this machine as a Debian package and by an installation beside it.",
        cure "Keep one of the two: aio-worker uninstall takes the installation off, apt remove aio-worker the package.";
    ServiceFailed "SERVICE_FAILED", exit 70, "systemd could not start the service, or it ended at once.",
        cure "Read the journal: journalctl -u aio-worker.service -n 50.";
    OnlineTimeout "ONLINE_TIMEOUT", exit 1, "The service runs, but the controller acknowledged no heartbeat in time.",
        cure "Check that this machine reaches the controller's WebSocket endpoint, then install again.";
    WorkerNotRunning "WORKER_NOT_RUNNING", exit 69, "No worker answers on its status socket.",
        cure "systemctl start aio-worker, or read journalctl -u aio-worker.";
    GpusNotReleased "GPUS_NOT_RELEASED", exit 75, "The worker has not let go of the GPUs in time.",
        cure "Try again; where the driver hangs, stop the worker (systemctl stop aio-worker), and reboot if it does not end.";

    OfferRefused "OFFER_REFUSED", exit 69, "The worker did not take the token that the controller offered it.",
        cure "The message says why; a token for another endpoint or authority must be installed by a person: aio-worker install --token.";
    CommandUnsupported "COMMAND_UNSUPPORTED", exit 69, "The controller asked for something that this worker cannot do.",
        cure "Install a newer worker on the node.";

    ControllerUnreachable "CONTROLLER_UNREACHABLE", exit 1, "The controller does not answer.",
        cure "Check the address in the message, name resolution, firewall and proxy, then run it again.";
    ControllerInvalid "CONTROLLER_INVALID", exit 78, "Something answers at the controller's address that is not an AIWM controller.",
        cure "Check the host and port in the message; a proxy or another service may own them.";
    CaMismatch "CA_MISMATCH", exit 78, "The controller presented another authority than the token names.",
        cure "If the controller was set up anew, make a new token; if not, something between this machine and the controller answers in its place.";
    TlsFailed "TLS_FAILED", exit 69, "There is no trusted TLS connection to the controller.",
        cure "The message says what is wrong with the certificate: its name, its dates (check this machine's clock) or its authority, which --ca-file makes known.";
    ProxyRefused "PROXY_REFUSED", exit 69, "The proxy does not let the connection to the controller through.",
        cure "Let the proxy's owner allow the controller's host and port; a password belongs into the proxy's URL, and NO_PROXY names hosts that are reached without.";
    ControllerError "CONTROLLER_ERROR", exit 1, "The controller answered with a fault of its own.",
        cure "Try again in a few minutes; the controller's log says why.";

    ReleaseNotFound "RELEASE_NOT_FOUND", exit 69, "The release server has no such file.",
        cure "Publish the version for this platform, or choose another daemonVersion for the token.";
    DownloadFailed "DOWNLOAD_FAILED", exit 1, "The release could not be downloaded.",
        cure "Check the release server at the URL in the message, then run it again.";
    SizeMismatch "SIZE_MISMATCH", exit 65, "The download is shorter or longer than the plan says.",
        cure "Something between the release server and this machine cuts or adds bytes, or the file was replaced; compare it with the published one.";
    ChecksumMismatch "CHECKSUM_MISMATCH", exit 65, "The download's SHA-256 is not the published one.",
        cure "Do not run the file; publish the release again or find who altered it, then run the installation again.";
    SignatureMissing "SIGNATURE_MISSING", exit 65, "A signed release is demanded, and there is no signature, or no key to check it with.",
        cure "Publish the release's .minisig beside it; with a bundle and --delay-connect, also give the release key by the token or --release-key.";
    SignatureInvalid "SIGNATURE_INVALID", exit 65, "The signature is not of this file, or cannot be read.",
        cure "Do not run the file; sign the release again with the fleet's release key, or find who altered it.";
    SignatureForeign "SIGNATURE_FOREIGN", exit 65, "The release is signed with another key than it must be signed with.",
        cure "If the release key has changed, make a new token, which carries it, or say --release-key; if not, do not run the file.";
    ReleaseKeyInvalid "RELEASE_KEY_INVALID", exit 78, "The release key that signatures are to be checked with cannot be read.",
        cure "Give --release-key, or the controller's RELEASE_PUBLIC_KEY, the public key's file or its one line of base64, as minisign -G made it.";
    ReleaseSwapped "RELEASE_SWAPPED", exit 65, "What was given is another release than the one to be installed.",
        cure "Publish the right file and its signature under this version and platform; with a bundle, make it again from this controller.";
    ReleaseInvalid "RELEASE_INVALID", exit 65, "The folder is no release, or its manifest, its sums and its files do not fit together.",
        cure "Copy the version's folder again, whole, as cargo xtask release has written it.";
    ReleaseExists "RELEASE_EXISTS", exit 73, "This version is published already, with other bytes.",
        cure "Give what has changed a version of its own; another platform of the same commit is added by cargo xtask release --add.";
    ElfInvalid "ELF_INVALID", exit 65, "The release file is no Linux program.",
        cure "Publish the program itself, not an archive or a page; then make a new token.";
    ArchitectureMismatch "ARCHITECTURE_MISMATCH", exit 65, "The release file is a program for another processor.",
        cure "Publish the file that was built for this platform; then make a new token.";
    BundleInvalid "BUNDLE_INVALID", exit 65, "The file is no bundle of a release, or a part of it is missing.",
        cure "Make the bundle again with aio-worker bundle, and compare the copies' sizes.";

    UpdatesOff "UPDATES_OFF", exit 78, "The node takes no updates from its controller.",
        cure "Switch them on at the node: aio-worker install --auto-update, or mode = \"auto\" under [updates] in its config.toml.";
    UpdatePackaged "UPDATE_PACKAGED", exit 78, "The package manager owns the worker's version on this node.",
        cure "Upgrade the package there: apt update && apt install --only-upgrade aio-worker.";
    UpdatePinned "UPDATE_PINNED", exit 78, "The node is pinned to another version.",
        cure "Take the pin away: aio-worker update unpin at the node, or controller-stub node unpin.";
    UpdateBelowFloor "UPDATE_BELOW_FLOOR", exit 78, "The version is older than the release index allows.",
        cure "Choose a version at or above the floor that the message names; what is below it was withdrawn by the owner of the release key.";
    UpdateUnreachable "UPDATE_UNREACHABLE", exit 69, "The version cannot be installed over the one that runs.",
        cure "Publish a version between the two, whose oldestFrom in the index allows it, or install on the node by hand.";
    UpdateInvalid "UPDATE_INVALID", exit 65, "The request for an update is incomplete, too long, or not in the form that it must have.",
        cure "Update the controller: what it asked for is not understood by this node.";
    UpdateBusy "UPDATE_BUSY", exit 75, "Another update or installation is under way on this node.",
        cure "Wait for it to end; aio-worker update status says how far it is.";
    UpdateExpired "UPDATE_EXPIRED", exit 1, "The update's deadline came before the node could switch.",
        cure "Nothing has to be done: the controller offers it again; if that never ends, look at the node's update window.";
    UpdateCancelled "UPDATE_CANCELLED", exit 75, "The controller took the update back.",
        cure "Look at the rollout: controller-stub rollout status.";
    IndexInvalid "INDEX_INVALID", exit 65, "The index of releases cannot be read, or does not name what is to be installed.",
        cure "Publish index.json and index.json.minisig again, as cargo xtask release has written them.";
    IndexExpired "INDEX_EXPIRED", exit 65, "The index of releases holds no more.",
        cure "Sign a new one (cargo xtask release --index) and publish it; if there is one, find who withholds it, and check this machine's clock.";
    IndexReplayed "INDEX_REPLAYED", exit 65, "The index of releases is older than one that this node has seen.",
        cure "Publish the newest index; if it is published, find who hands out an old one.";
    KeyRevoked "KEY_REVOKED", exit 65, "The release is signed with a key that was revoked.",
        cure "Sign the release again with a key that is believed; do not run the file.";
    RehearsalFailed "REHEARSAL_FAILED", exit 70, "The new version did not reach the controller when it was tried beside the running one.",
        cure "Nothing was changed. The message says what it ended with; mend the release, or the node's configuration.";
    UpdateFaulty "UPDATE_FAULTY", exit 70, "The new version does not work on this node, which runs the version before again.",
        cure "Mend the release and give it a version of its own; the same one is tried again only with --retry.";
    UpdateInconclusive "UPDATE_INCONCLUSIVE", exit 1, "Whether the new version works could not be told: nobody reached the controller, the version before neither.",
        cure "Check the network between node and controller; the update is tried again by itself.";
    UpdateInterrupted "UPDATE_INTERRUPTED", exit 75, "The machine or the update was stopped before the new version had proven itself.",
        cure "Nothing has to be done: it is tried again by itself.";
    RevertImpossible "REVERT_IMPOSSIBLE", exit 69, "There is no version to go back to.",
        cure "Install the version that is wanted: aio-worker install.";
    RolloutConflict "ROLLOUT_CONFLICT", exit 65, "Another rollout is under way for these nodes.",
        cure "Abort the other one, or wait until it is completed.";

    DatabaseBusy "DATABASE_BUSY", exit 75, "Another process holds the controller's database.",
        cure "Try again in a few seconds; if it lasts, end what holds the database: a shell of sqlite3, or a backup that locks it.";
    DatabaseUnreachable "DATABASE_UNREACHABLE", exit 75, "The controller's database server does not answer.",
        cure "See whether PostgreSQL runs at the host and port of DATABASE_URL and is reached from here; the controller goes on by itself once it is.";
    DatabaseRefused "DATABASE_REFUSED", exit 77, "PostgreSQL does not let the controller use its database.",
        cure "The message says what is refused: the user or password, the database's name, a right, or the server's certificate; mend it there or in DATABASE_URL.";
    DatabaseReadOnly "DATABASE_READ_ONLY", exit 75, "The controller's database takes no changes.",
        cure "Point DATABASE_URL at the primary: this is a standby, or default_transaction_read_only is on.";
    DatabaseUnsupported "DATABASE_UNSUPPORTED", exit 78, "The controller cannot work with this database.",
        cure "The message says why: use PostgreSQL 14 or later, and a database with the encoding UTF8.";
    DatabaseDamaged "DATABASE_DAMAGED", exit 65, "The controller's database is damaged, or its file is no database of this program.",
        cure "Stop the controller and put the file of the last backup in its place, without the -wal and -shm files beside it.";
    DatabaseNewer "DATABASE_NEWER", exit 78, "A later version of the controller wrote the database.",
        cure "Install that version again, or put the database back that was backed up before the upgrade.";
    DatabaseInUse "DATABASE_IN_USE", exit 78, "Another controller serves the same database.",
        cure "Stop one of the two, or give it a DATABASE_URL of its own.";
    DiskFull "DISK_FULL", exit 73, "There is not enough room.",
        cure "Free the space that the message names on that file system.";
    TargetReadOnly "TARGET_READ_ONLY", exit 73, "A folder that the installation needs is read-only.",
        cure "Mount it writable, then run the installation again.";
    TargetNoexec "TARGET_NOEXEC", exit 73, "Programs cannot run from a folder that the installation needs.",
        cure "Mount its file system without noexec, then run the installation again.";
    FileFailed "FILE_FAILED", exit 74, "A file could not be read or written.",
        cure "The message names the file and the system's reason.";
    InstallLocked "INSTALL_LOCKED", exit 75, "Another installation is running on this machine.",
        cure "Wait for it to end.";
    AccountsLocked "ACCOUNTS_LOCKED", exit 75, "Another program holds the lock of the system's accounts, /etc/.pwd.lock.",
        cure "Wait for the program that the message names to end, or end it, then run the installation again.";
    JournalUnreadable "JOURNAL_UNREADABLE", exit 70, "The journal of an earlier installation cannot be understood, so it can be neither finished nor undone.",
        cure "Keep the journal that the message names for a bug report, then move it away.";
    InstallStalled "INSTALL_STALLED", exit 1, "The controller heard nothing of a running installation for too long, and counts it as failed.",
        cure "Look at the machine: run the installation again there, which finishes or undoes what was left.";
    Interrupted "INTERRUPTED", exit 130, "The command was interrupted, and has undone what it did.",
        cure "Run it again when you are ready.";
    Internal "INTERNAL", exit 70, "The program met a state that it should never be in.",
        cure "Please report it with the message and the log.";

    ValidationFailed "VALIDATION_FAILED", exit 65, "A request has a field that is unknown, missing or out of range.",
        cure "Correct the field that the message names; docs/api.md lists them.";
    LoginLinkInvalid "LOGIN_LINK_INVALID", exit 77, "The link that signs in to the pages was used, is too old, or never was one.",
        cure "Print another with controller-stub login.";
    OidcStateInvalid "OIDC_STATE_INVALID", exit 77, "A sign-in through the identity provider did not begin in this browser, is too old, or has ended already.",
        cure "Begin again on the sign-in page, at the address that PUBLIC_URL names, with cookies allowed.";
    OidcUnavailable "OIDC_UNAVAILABLE", exit 69, "The identity provider does not answer, or not as OpenID Connect asks for.",
        cure "Try again in a moment; if it stays so, open OIDC_ISSUER/.well-known/openid-configuration from the controller's machine, and sign in with controller-stub login meanwhile.";
    OidcRefused "OIDC_REFUSED", exit 77, "The identity provider does not sign the user in.",
        cure "Sign in again; if it refuses again, compare OIDC_CLIENT_ID, the secret and the redirect address PUBLIC_URL/ui/login/oidc/callback with what is registered there.";
    OidcTokenInvalid "OIDC_TOKEN_INVALID", exit 77, "The identity provider's ID token is not believed: its signature, issuer, audience, nonce or time is wrong.",
        cure "Sign in again; if it stays so, check the clocks, and that OIDC_ISSUER and OIDC_CLIENT_ID are as the provider writes them.";
    OidcNoRole "OIDC_NO_ROLE", exit 77, "The identity provider knows the user, and its claims give no role, user or organisation here.",
        cure "Have the provider put the claim that the message names into the ID token, and name its value in OIDC_ROLES.";
    Forbidden "FORBIDDEN", exit 77, "The token is valid and does not allow this.",
        cure "Use a token of the organisation that owns the node, with a role that may do it.";
    NotFound "NOT_FOUND", exit 69, "There is nothing at this address.",
        cure "Check the path against docs/api.md.";
    TransitionRefused "TRANSITION_REFUSED", exit 65, "The node's status does not allow this.",
        cure "The answer lists what is allowed; look at the node's status first.";
    NameTaken "NAME_TAKEN", exit 65, "Another node in service of the organisation has this name.",
        cure "Choose another name, or decommission or rename the node that has it.";
    IdempotencyKeyReused "IDEMPOTENCY_KEY_REUSED", exit 65, "The Idempotency-Key stands for a request with another body.",
        cure "Give every request a key of its own, and send it again unchanged or not at all.";
    IdempotencyKeyInUse "IDEMPOTENCY_KEY_IN_USE", exit 1, "The request with this Idempotency-Key is being answered, or was when the controller ended.",
        cure "Wait and send it again; if it stays so, look whether the request has done its work, and send it with a new key if not.";
    MethodNotAllowed "METHOD_NOT_ALLOWED", exit 65, "The address exists and does not take this method.",
        cure "The Allow header says which it takes.";
    BodyTooLarge "BODY_TOO_LARGE", exit 65, "The request's body is larger than the controller accepts.",
        cure "Send less; no request of the API comes near the limit.";
    MediaTypeUnsupported "MEDIA_TYPE_UNSUPPORTED", exit 65, "The request's body is not application/json.",
        cure "Send JSON with Content-Type: application/json.";
    SignatureRefused "SIGNATURE_REFUSED", exit 77, "An event's webhook signature is missing, wrong or too old.",
        cure "Sign the raw body with NOTI_WEBHOOK_SECRET after the Standard Webhooks specification, and check the clock.";
    VerifyOnly "VERIFY_ONLY", exit 78, "This controller holds no key to sign tokens with.",
        cure "Ask the controller that has JWT_PRIVATE_KEY_FILE, or set it here.";
    EventGone "EVENT_GONE", exit 69, "The event to continue behind is not kept: it was pruned, or never received.",
        cure "Begin anew without `since`, or with a time; what was pruned meanwhile is lost.";
    RateLimited "RATE_LIMITED", exit 1, "More requests came than the controller takes at present.",
        cure "Wait for as long as Retry-After says.";
}

impl ErrorCode {
    /// The code that `text` names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }

    /// The code of a system call that failed.
    pub fn of_io(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::DiskFull,
            ErrorKind::ReadOnlyFilesystem => Self::TargetReadOnly,
            _ => Self::FileFailed,
        }
    }

    /// The code of a controller's refusal with this HTTP status whose own code is not known here.
    pub fn of_http_status(status: u16) -> Self {
        match status {
            401 => Self::TokenInvalid,
            403 => Self::Forbidden,
            404 => Self::NodeNotFound,
            _ => Self::of_foreign_status(status),
        }
    }

    /// The code of an answer with this HTTP status that is not in the controller's form. A proxy or a
    /// captive portal may have given it, so it says nothing about the token or the node.
    pub fn of_foreign_status(status: u16) -> Self {
        match status {
            429 => Self::RateLimited,
            500..=599 => Self::ControllerError,
            _ => Self::ControllerInvalid,
        }
    }

    /// Whether the same may succeed later without anybody doing anything about it.
    pub fn is_transient(self) -> bool {
        self.exit_status() == 1
    }

    /// Whether it is the token itself that is refused, and another may be welcome.
    pub fn refuses_the_token(self) -> bool {
        matches!(
            self,
            Self::TokenInvalid
                | Self::TokenExpired
                | Self::TokenRevoked
                | Self::TokenForeign
                | Self::SecretRefused
                | Self::Forbidden
        )
    }

    /// Whether no waiting mends it: the controller will not have this token or this node, or the
    /// worker cannot use its configuration.
    pub fn is_final(self) -> bool {
        self.refuses_the_token()
            || matches!(
                self,
                Self::TokenMissing
                    | Self::NodeNotFound
                    | Self::NodeInactive
                    | Self::NodeSuspended
                    | Self::NodeSuperseded
                    | Self::ConfigInvalid
                    | Self::InsecureUrl
            )
    }

    /// Whether a person has to do something: it is final, or something else answers in the
    /// controller's place.
    pub fn needs_a_person(self) -> bool {
        self.is_final() || matches!(self, Self::CaMismatch | Self::TlsFailed | Self::ControllerInvalid)
    }

    /// Whether it is the release that is at fault, so that another try of the same changes nothing.
    pub fn condemns_the_release(self) -> bool {
        matches!(
            self,
            Self::UpdateFaulty
                | Self::UpdateBelowFloor
                | Self::UpdateUnreachable
                | Self::KeyRevoked
                | Self::ArchitectureMismatch
                | Self::PlatformUnsupported
        )
    }
}

impl From<ErrorCode> for String {
    fn from(code: ErrorCode) -> Self {
        code.as_str().to_owned()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_needs_no_person() {
        for code in ErrorCode::ALL {
            assert!(!(code.is_transient() && code.needs_a_person()), "{code}");
            assert!(!(code.is_transient() && code.condemns_the_release()), "{code}");
        }
        for status in 0..=999 {
            let code = ErrorCode::of_http_status(status);
            assert_eq!(code.refuses_the_token(), matches!(status, 401 | 403), "{status}");
            assert_eq!(code.is_transient(), status == 429 || (500..600).contains(&status), "{status}");
            let foreign = ErrorCode::of_foreign_status(status);
            assert_eq!(foreign.is_transient(), code.is_transient(), "{status}");
            assert!(!foreign.is_final(), "{status}: whoever says that has not seen the token");
        }
    }

    #[test]
    fn codes_are_unique_and_speak_in_sentences() {
        for (index, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(*code));
            assert_eq!(ErrorCode::ALL.iter().position(|other| other.as_str() == code.as_str()), Some(index));
            assert!(code.meaning().ends_with('.') && code.cure().ends_with('.'), "{code}");
            assert_ne!(code.exit_status(), 0, "{code}");
        }
    }
}
