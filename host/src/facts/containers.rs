//! What runs containers here, found without asking it: a question to Docker's socket would have
//! systemd start Docker. Where the units are known that bring one, they say it; elsewhere, and for
//! what came without a unit, what lies on the disk does.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aio_protocol::{
    inventory::ContainerRuntime,
    service::{Service, ServiceState},
};

use super::packages::Packages;
use crate::systemd::units::{CONTAINERD, DOCKER, PODMAN, SNAP_DOCKER, WATCHED};

/// Where programs are installed, snaps included.
const PROGRAMS: [&str; 5] = ["usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", "snap/bin"];

struct Runtime {
    name: &'static str,
    /// The units that bring it.
    units: &'static [&'static str],
    program: &'static str,
    socket: &'static str,
    /// Where the service writes its process id, when systemd may listen on the socket in its place.
    process_ids: &'static [&'static str],
}

/// The likeliest to be what an operator means first: Docker brings its own containerd.
const RUNTIMES: [Runtime; 3] = [
    Runtime {
        name: "docker",
        units: &[DOCKER, SNAP_DOCKER],
        program: "dockerd",
        socket: "/run/docker.sock",
        process_ids: &["run/docker.pid", "run/snap.docker/docker.pid"],
    },
    Runtime {
        name: "containerd",
        units: &[CONTAINERD],
        program: "containerd",
        socket: "/run/containerd/containerd.sock",
        process_ids: &[],
    },
    Runtime {
        name: "podman",
        units: &[PODMAN],
        program: "podman",
        socket: "/run/podman/podman.sock",
        process_ids: &[],
    },
];

/// The first whose service runs, else the first that has one. None where nothing is known of any,
/// which is no word about other ways to have one.
pub fn among(services: &[Service]) -> Option<ContainerRuntime> {
    let with = |wanted: fn(ServiceState) -> bool| {
        let unit =
            |unit: &&str| services.iter().find(|service| service.name == **unit && wanted(service.state));
        RUNTIMES.iter().find_map(|runtime| Some((runtime, runtime.units.iter().find_map(unit)?)))
    };
    let there = |state| !matches!(state, ServiceState::Absent | ServiceState::Unknown);
    let (runtime, service) = with(|state| state == ServiceState::Active).or_else(|| with(there))?;
    Some(ContainerRuntime {
        name: runtime.name.to_owned(),
        active: service.state == ServiceState::Active,
        version: service.version.clone(),
    })
}

/// The first that runs, else the first that is installed, by what lies under `root`.
pub fn runtime(root: &Path) -> Option<ContainerRuntime> {
    let sockets = fs::read_to_string(root.join("proc/net/unix")).unwrap_or_default();
    let found = |runtime: &Runtime, active| {
        let brought = WATCHED.iter().filter(|watched| runtime.units.contains(&watched.name));
        let names: Vec<_> = brought.flat_map(|watched| watched.packages.iter().copied()).collect();
        let version = Packages::under(root, names.clone()).version(&names);
        ContainerRuntime { name: runtime.name.to_owned(), active, version }
    };
    let active = RUNTIMES.iter().find(|runtime| is_active(runtime, root, &sockets));
    let installed = || RUNTIMES.iter().find(|runtime| is_installed(runtime, root));
    active.map(|runtime| found(runtime, true)).or_else(|| installed().map(|runtime| found(runtime, false)))
}

fn is_installed(runtime: &Runtime, root: &Path) -> bool {
    PROGRAMS.iter().any(|dir| root.join(dir).join(runtime.program).exists())
}

fn is_active(runtime: &Runtime, root: &Path, sockets: &str) -> bool {
    let alive = |file: &&str| {
        let id = fs::read_to_string(root.join(file)).unwrap_or_default();
        id.trim().parse::<u32>().is_ok_and(|id| root.join(PathBuf::from(format!("proc/{id}"))).exists())
    };
    listened(sockets, runtime.socket)
        && (runtime.process_ids.is_empty() || runtime.process_ids.iter().any(alive))
}

/// Whether the kernel's list of Unix sockets (`address count protocol flags type state inode path`)
/// has a listener on `path`. The file itself outlives its listener.
fn listened(sockets: &str, path: &str) -> bool {
    // __SO_ACCEPTCON of <linux/net.h>.
    const LISTENING: &str = "00010000";
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(3);
        fields.next() == Some(LISTENING)
            && fields.nth(3).is_some_and(|bound| bound.strip_prefix("/var").unwrap_or(bound) == path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "Num       RefCount Protocol Flags    Type St Inode Path\n";

    struct Bench(tempfile::TempDir);

    impl Bench {
        fn with(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (file, text) in files {
                let file = dir.path().join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            Self(dir)
        }

        fn runtime(&self) -> Option<(String, bool)> {
            runtime(self.0.path()).map(|runtime| (runtime.name, runtime.active))
        }
    }

    fn listener(path: &str) -> String {
        format!("{HEADER}000000008ee3520f: 00000002 00000000 00010000 0001 01 20131 {path}\n")
    }

    #[test]
    fn a_machine_without_any_has_none() {
        assert_eq!(Bench::with(&[("proc/net/unix", HEADER)]).runtime(), None);
        assert_eq!(Bench::with(&[]).runtime(), None);
    }

    #[test]
    fn docker_runs_when_its_process_lives_and_not_when_systemd_listens_for_it() {
        let sockets = listener("/var/run/docker.sock");
        let installed = [("usr/bin/dockerd", ""), ("proc/net/unix", sockets.as_str())];
        assert_eq!(Bench::with(&installed).runtime(), Some(("docker".into(), false)));

        let mut dead = installed.to_vec();
        dead.push(("run/docker.pid", "812\n"));
        assert_eq!(Bench::with(&dead).runtime(), Some(("docker".into(), false)));

        let mut alive = dead;
        alive.push(("proc/812/comm", "dockerd"));
        assert_eq!(Bench::with(&alive).runtime(), Some(("docker".into(), true)));
    }

    #[test]
    fn a_socket_file_without_a_listener_is_nothing_that_runs() {
        let connected = listener("/run/containerd/containerd.sock").replace("00010000", "00000000");
        let files = [("usr/bin/containerd", ""), ("proc/net/unix", connected.as_str())];
        assert_eq!(Bench::with(&files).runtime(), Some(("containerd".into(), false)));
    }

    #[test]
    fn what_runs_comes_before_what_is_only_installed() {
        let sockets = listener("/run/containerd/containerd.sock");
        let files =
            [("usr/bin/dockerd", ""), ("usr/bin/containerd", ""), ("proc/net/unix", sockets.as_str())];
        assert_eq!(Bench::with(&files).runtime(), Some(("containerd".into(), true)));
        assert_eq!(Bench::with(&[("usr/bin/podman", "")]).runtime(), Some(("podman".into(), false)));
    }

    #[test]
    fn units_say_what_runs_before_what_is_there_and_snaps_docker_is_docker() {
        let service = |name: &str, state| Service { state, ..Service::unknown(name) };
        let told = |services: &[Service]| {
            among(services).map(|runtime| (runtime.name, runtime.active, runtime.version))
        };
        use ServiceState::{Absent, Active, Failed, Inactive, Unknown};
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[service(DOCKER, Absent), service(CONTAINERD, Unknown)]), None);
        let containerd = Service { version: Some("1.7.0".into()), ..service(CONTAINERD, Active) };
        assert_eq!(
            told(&[service(DOCKER, Failed), containerd]),
            Some(("containerd".into(), true, Some("1.7.0".into())))
        );
        assert_eq!(
            told(&[service(DOCKER, Failed), service(CONTAINERD, Inactive)]),
            Some(("docker".into(), false, None))
        );
        assert_eq!(
            told(&[service(DOCKER, Absent), service(SNAP_DOCKER, Active)]),
            Some(("docker".into(), true, None))
        );
        assert_eq!(told(&[service(PODMAN, Active)]), Some(("podman".into(), true, None)));
    }
}
