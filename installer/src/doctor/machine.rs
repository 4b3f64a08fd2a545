//! What can be seen without leaving the machine.

use std::{fs, path::Path};

use aio_host::{
    facts::container_runtime,
    files::FileSystem,
    layout::Layout,
    systemd::{ServiceSettings, SystemdError, UnitState},
};
use aio_protocol::{error_code::ErrorCode, inventory::ContainerRuntime, release::Platform};

use super::finding::Finding;
use crate::machine::{accounts, drop_ins, lock::Lock, observe};

/// The systemd of Debian 11; Ubuntu 22.04 has 249.
const OLDEST_SYSTEMD: u32 = 247;

/// Twice a release of the usual size.
const MIN_FREE_BYTES: u64 = 32 << 20;

/// Systems on which every release is tested, and Ubuntu's, whose systemd lies between those.
/// Debian's next release has a code name and no version yet.
const KNOWN: [(&str, &[&str]); 2] =
    [("ubuntu", &["22.04", "24.04", "26.04"]), ("debian", &["11", "12", "13", "forky"])];

pub(super) fn privileges(root: bool) -> Finding {
    if root {
        Finding::ok("root", "running as root")
    } else {
        let cure = "Run it with sudo; installing needs root, and so does looking at the token.";
        Finding::warning("root", "not running as root, so not everything can be looked at", cure)
    }
}

pub(super) fn system(root: &Path) -> Finding {
    let text = fs::read_to_string(root.join("etc/os-release"))
        .or_else(|_| fs::read_to_string(root.join("usr/lib/os-release")))
        .unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim().trim_matches('"').to_owned()).unwrap_or_default()
    };
    let id = field("ID");
    let version = Some(field("VERSION_ID")).filter(|version| !version.is_empty());
    let version = version.unwrap_or_else(|| field("VERSION_CODENAME"));
    let name = Some(field("PRETTY_NAME")).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| "a system that does not say what it is".to_owned());
    let known = KNOWN.iter().any(|(known, versions)| *known == id && versions.contains(&version.as_str()));
    if known {
        Finding::ok("system", name)
    } else {
        let cure = "Ubuntu 22.04, 24.04 and 26.04, Debian 11, 12, 13 and testing are known to work; on others with systemd 247 and glibc 2.31 or newer say install --force-os.";
        Finding::warning("system", format!("{name} is not among the systems that were tested"), cure)
    }
}

pub(super) fn processor(architecture: &str) -> Finding {
    match Platform::of_architecture(architecture) {
        Some(platform) => Finding::ok("architecture", platform.to_string()),
        None => {
            let reason = format!("there is no release for {architecture}");
            Finding::failed("architecture", ErrorCode::PlatformUnsupported, reason)
        }
    }
}

pub(super) fn room(layout: &Layout) -> Finding {
    let path = layout.releases();
    let file_system = match FileSystem::of(&path) {
        Ok(file_system) => file_system,
        Err(error) => return Finding::of("disk", Err(error.into())),
    };
    match file_system.lacks(MIN_FREE_BYTES) {
        Some((needed, available, what)) => {
            let reason = format!("{} has {available} {what} free, and {needed} are needed", path.display());
            Finding::failed("disk", ErrorCode::DiskFull, reason)
        }
        None => {
            Finding::ok("disk", format!("{} MiB free at {}", file_system.free_bytes >> 20, path.display()))
        }
    }
}

pub(super) fn folders(layout: &Layout) -> Finding {
    if let Some(folder) = observe::read_only(layout).first() {
        let reason = format!("{} is on a read-only file system", folder.display());
        return Finding::failed("folders", ErrorCode::TargetReadOnly, reason);
    }
    let releases = layout.releases();
    if !layout.is_packaged() && FileSystem::of(&releases).is_ok_and(|found| !found.runs_programs) {
        let reason = format!("{} is on a file system that is mounted with noexec", releases.display());
        return Finding::failed("folders", ErrorCode::TargetNoexec, reason);
    }
    Finding::ok("folders", "what an installation writes to is writable, and programs run there")
}

pub(super) fn lock(layout: &Layout) -> Finding {
    let dir = layout.journal_dir();
    if Lock::is_held(&dir) {
        let reason = format!("an installation is running: it holds {}", dir.display());
        Finding::failed("lock", ErrorCode::InstallLocked, reason)
    } else {
        Finding::ok("lock", "no installation is running")
    }
}

/// The daemon's user is created by the system's account tools, which wait for each other.
pub(super) fn accounts(root: &Path) -> Finding {
    match accounts::lock_holder(&root.join("etc")) {
        Some(holder) => {
            let reason = format!("{holder} holds /etc/.pwd.lock");
            Finding::failed("accounts", ErrorCode::AccountsLocked, reason)
        }
        None => Finding::ok("accounts", "nobody holds the lock of the system's accounts"),
    }
}

pub(super) fn manager(version: Result<String, SystemdError>) -> Finding {
    let version = match version {
        Ok(version) => version,
        Err(error) => return Finding::of("systemd", Err(error.into())),
    };
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    match digits.parse::<u32>() {
        Ok(number) if number < OLDEST_SYSTEMD => {
            let reason = format!("systemd {version} is older than {OLDEST_SYSTEMD}");
            Finding::failed("systemd", ErrorCode::SystemdOutdated, reason)
        }
        _ => Finding::ok("systemd", format!("{version}, reached over D-Bus")),
    }
}

pub(super) fn unit(unit: Result<UnitState, SystemdError>) -> Finding {
    let unit = match unit {
        Ok(unit) => unit,
        Err(error) => return Finding::of("unit", Err(error.into())),
    };
    let UnitState { load_state, active_state, file_state, result, .. } = &unit;
    if unit.is_masked() {
        return Finding::failed("unit", ErrorCode::UnitMasked, unit.mask());
    }
    match (load_state.as_str(), active_state.as_str()) {
        ("not-found", _) => Finding::ok("unit", "aio-worker is not installed yet"),
        (_, "active") => Finding::ok("unit", format!("aio-worker.service is active and {file_state}")),
        _ => {
            let reason = format!("aio-worker.service is {active_state} ({result}) and {file_state}");
            Finding::failed("unit", ErrorCode::ServiceFailed, reason)
        }
    }
}

/// Whether the unit gives the service what the worker needs, after all drop-ins.
pub(super) fn drop_ins(settings: Result<ServiceSettings, SystemdError>) -> Finding {
    const CHECK: &str = "drop_ins";
    let taken = match settings {
        Ok(settings) => drop_ins::taken_away(&settings),
        Err(error) => return Finding::of(CHECK, Err(error.into())),
    };
    if taken.is_empty() {
        return Finding::ok(CHECK, "none takes away what the worker needs");
    }
    let cure = "Take the line out of the drop-in; where that is not yours (LXC and Incus write it), the worker is given its token in /run/aio-worker, \
        and the rest can be set again by systemctl edit aio-worker.";
    Finding::warning(CHECK, taken.join("; "), cure)
}

/// What deployments run in. The worker itself needs none.
pub(super) fn containers(root: &Path) -> Finding {
    const CHECK: &str = "containers";
    match container_runtime(root) {
        Some(ContainerRuntime { name, active: true, .. }) => Finding::ok(CHECK, format!("{name} runs")),
        Some(ContainerRuntime { name, active: false, .. }) => {
            let cure = format!("sudo systemctl enable --now {name}, if deployments are to run here.");
            Finding::warning(CHECK, format!("{name} is installed and does not run"), cure)
        }
        None => {
            let cure = "Install Docker or containerd, if deployments are to run here; the worker itself needs neither.";
            Finding::warning(CHECK, "there is no container runtime", cure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn systems_are_known_by_name_and_version() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(system(root.path()).result, Verdict::Warning);
        fs::create_dir(root.path().join("etc")).unwrap();
        for (text, expected) in [
            ("ID=ubuntu\nVERSION_ID=\"24.04\"\nPRETTY_NAME=\"Ubuntu 24.04 LTS\"\n", Verdict::Ok),
            ("ID=debian\nVERSION_ID=\"12\"\n", Verdict::Ok),
            ("ID=debian\nVERSION_ID=\"11\"\n", Verdict::Ok),
            ("ID=ubuntu\nVERSION_ID=\"26.04\"\nVERSION_CODENAME=resolute\n", Verdict::Ok),
            ("ID=debian\nVERSION_CODENAME=forky\n", Verdict::Ok),
            ("ID=debian\nVERSION_ID=\"15\"\nVERSION_CODENAME=duke\n", Verdict::Warning),
            ("ID=ubuntu\nVERSION_ID=\"18.04\"\n", Verdict::Warning),
            ("ID=fedora\nVERSION_ID=40\n", Verdict::Warning),
        ] {
            fs::write(root.path().join("etc/os-release"), text).unwrap();
            assert_eq!(system(root.path()).result, expected, "{text}");
        }
    }

    #[test]
    fn an_outdated_systemd_is_no_ground_to_stand_on() {
        let code = |version: &str| manager(Ok(version.to_owned())).code;
        assert_eq!(code("245.4-4ubuntu3"), Some(ErrorCode::SystemdOutdated));
        for version in ["247.3-7+deb11u5", "249", "252.39-1~deb12u2", "v257", "262-1"] {
            assert_eq!(code(version), None, "{version}");
        }
    }

    #[test]
    fn a_unit_is_well_when_it_is_active_or_not_there_yet() {
        let state = |load: &str, active: &str, file: &str| {
            let state = UnitState {
                load_state: load.into(),
                active_state: active.into(),
                file_state: file.into(),
                ..UnitState::default()
            };
            unit(Ok(state)).code
        };
        assert_eq!(state("not-found", "inactive", ""), None);
        assert_eq!(state("loaded", "active", "enabled"), None);
        assert_eq!(state("loaded", "failed", "enabled"), Some(ErrorCode::ServiceFailed));
        assert_eq!(state("masked", "inactive", "masked"), Some(ErrorCode::UnitMasked));
    }
}
