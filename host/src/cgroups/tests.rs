//! Machines as folders of files: each driver's tree of both versions of control groups.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::*;

const UID: &str = "0c9d3d1e-5b0c-4f7b-9a53-3a0d3a3c8f11";

/// A machine.
struct Bench(tempfile::TempDir);

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

impl Bench {
    /// With version 2.
    fn unified() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        bench.write("sys/fs/cgroup/cgroup.controllers", "cpu memory pids");
        bench
    }

    fn write(&self, file: &str, text: &str) -> PathBuf {
        let file = self.0.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    /// A group of version 2 with processes.
    fn group(&self, path: &str, pids: &str) {
        let at = |file: &str| format!("sys/fs/cgroup/{path}/{file}");
        self.write(&at("cgroup.procs"), pids);
        self.write(&at("cgroup.events"), "populated 1\nfrozen 0\n");
        self.write(&at("cpu.stat"), "usage_usec 2500000\nuser_usec 1\n");
        self.write(&at("memory.current"), "1048576\n");
        self.write(&at("memory.max"), "max\n");
        self.write(&at("memory.events"), "low 0\noom 1\noom_kill 0\noom_group_kill 0\n");
    }

    /// The kubelet's link to the log of a container.
    fn link(&self, id: &str, name: &str, restarts: u32) {
        let folder = self.0.path().join("var/log/containers");
        fs::create_dir_all(&folder).unwrap();
        let target = format!("/var/log/pods/shop_cart-0_{UID}/{name}/{restarts}.log");
        symlink(Path::new(&target), folder.join(format!("cart-0_shop_{name}-{id}.log"))).unwrap();
    }

    fn groups(&self) -> Groups {
        Cgroups::under(self.0.path()).groups()
    }

    fn found(&self) -> Vec<(String, ContainerEngine)> {
        self.groups().containers.into_iter().map(|it| (it.id, it.engine)).collect()
    }
}

#[test]
fn a_machine_without_control_groups_or_containers_has_none() {
    assert_eq!(Bench(tempfile::tempdir().unwrap()).groups(), Groups::default());
    let bench = Bench::unified();
    bench.group("system.slice/ssh.service", "812\n");
    assert_eq!(bench.groups(), Groups::default());
}

#[test]
fn each_engine_is_found_where_each_driver_puts_it_and_none_below_another() {
    use ContainerEngine::{Containerd, CriO, Docker, Podman, Unknown};
    let bench = Bench::unified();
    let pod = format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
    bench.group(&format!("system.slice/docker-{}.scope", id('1')), "1\n");
    // A container within a container is the outer one's.
    bench.group(&format!("system.slice/docker-{}.scope/docker/{}", id('1'), id('9')), "2\n");
    bench.group(&format!("docker/{}", id('2')), "3\n");
    bench.group(
        &format!("kubepods.slice/kubepods-burstable.slice/{pod}/cri-containerd-{}.scope", id('3')),
        "4\n",
    );
    bench.group(&format!("kubepods/burstable/pod{UID}/{}", id('4')), "5\n");
    bench.group(&format!("kubepods/pod{UID}/crio-{}", id('5')), "6\n");
    let user = "user.slice/user-1000.slice/user@1000.service/user.slice";
    bench.group(&format!("{user}/libpod-{}.scope/container", id('6')), "7\n");
    bench.group(&format!("machine.slice/libpod-conmon-{}.scope", id('6')), "8\n");
    // What is stopped may leave its group for a moment.
    bench.group(&format!("system.slice/docker-{}.scope", id('7')), "");
    assert_eq!(
        bench.found(),
        [
            (id('1'), Docker),
            (id('2'), Docker),
            (id('3'), Containerd),
            (id('4'), Unknown),
            (id('5'), CriO),
            (id('6'), Podman)
        ]
    );
}

#[test]
fn version_2_says_what_a_container_uses_and_which_processes_it_has() {
    let bench = Bench::unified();
    let path = format!("system.slice/docker-{}.scope", id('1'));
    bench.group(&path, "812\n813\n");
    bench.group(&format!("{path}/init.scope"), "814\n");
    let whole = Group {
        id: id('1'),
        engine: ContainerEngine::Docker,
        cpu_micros: Some(2_500_000),
        memory_used: Some(1_048_576),
        oom_kills: Some(0),
        pids: vec![812, 813, 814],
        ..Group::default()
    };
    let found = bench.groups().containers.remove(0);
    assert_ne!(found.number, 0);
    assert_eq!(Group { number: 0, ..found.clone() }, whole);

    let at = |file: &str| format!("sys/fs/cgroup/{path}/{file}");
    bench.write(&at("memory.max"), "8589934592\n");
    bench.write(&at("memory.events"), "oom 3\noom_kill 2\n");
    bench.write(&at("cgroup.events"), "populated 1\nfrozen 1\n");
    let changed = bench.groups().containers.remove(0);
    assert_eq!((changed.memory_limit, changed.oom_kills, changed.paused), (Some(8 << 30), Some(2), true));
    assert_eq!(changed.number, found.number, "the same start");

    // Started again: the engine makes the group anew.
    let folder = bench.0.path().join("sys/fs/cgroup").join(&path);
    fs::rename(&folder, folder.with_extension("old")).unwrap();
    bench.group(&path, "900\n");
    assert_ne!(bench.groups().containers.remove(0).number, found.number);
}

#[test]
fn version_1_says_the_same_in_its_own_files() {
    let bench = Bench(tempfile::tempdir().unwrap());
    let path = format!("system.slice/docker-{}.scope", id('1'));
    let at = |controller: &str, file: &str| format!("sys/fs/cgroup/{controller}/{path}/{file}");
    // Debian 11 in its hybrid form has an empty tree of version 2 beside them.
    bench.write("sys/fs/cgroup/unified/cgroup.controllers", "");
    bench.write(&at("memory", "cgroup.procs"), "812\n");
    bench.write(&at("memory", "memory.usage_in_bytes"), "1048576\n");
    bench.write(&at("memory", "memory.limit_in_bytes"), "9223372036854771712\n");
    bench.write(&at("memory", "memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n");
    bench.write(&at("cpuacct", "cpuacct.usage"), "2500000999\n");
    bench.write(&at("freezer", "freezer.state"), "FROZEN\n");
    let found = bench.groups().containers.remove(0);
    let whole = Group {
        id: id('1'),
        engine: ContainerEngine::Docker,
        number: found.number,
        paused: true,
        cpu_micros: Some(2_500_000),
        memory_used: Some(1_048_576),
        oom_kills: Some(4),
        pids: vec![812],
        ..Group::default()
    };
    assert_eq!(found, whole);

    // A kernel without the memory controller: systemd's own tree has the group, and nobody knows its memory.
    fs::remove_dir_all(bench.0.path().join("sys/fs/cgroup/memory")).unwrap();
    bench.write(&at("systemd", "cgroup.procs"), "812\n");
    let found = bench.groups().containers.remove(0);
    assert_eq!((found.pids, found.cpu_micros, found.memory_used), (vec![812], Some(2_500_000), None));
}

#[test]
fn the_kubelets_links_name_containers_count_restarts_and_tell_a_pods_sandbox_from_them() {
    let bench = Bench::unified();
    let pod = format!("kubepods.slice/kubepods-pod{}.slice", UID.replace('-', "_"));
    for digit in ['1', '2'] {
        bench.group(&format!("{pod}/cri-containerd-{}.scope", id(digit)), "812\n");
    }
    bench.write(&format!("sys/fs/cgroup/{pod}/memory.events"), "oom_kill 5\n");
    let nameless = bench.groups();
    assert_eq!(nameless.containers.len(), 2, "without links nobody knows which is the sandbox");
    assert_eq!(nameless.containers[0].pod, Some(Pod { uid: UID.into(), ..Pod::default() }));
    assert_eq!(nameless.pod_oom_kills, HashMap::from([(UID.to_owned(), 5)]));

    bench.link(&id('2'), "web", 7);
    let named = bench.groups().containers;
    assert_eq!(named.len(), 1);
    let pod = Pod { uid: UID.into(), name: Some("cart-0".into()), namespace: Some("shop".into()) };
    assert_eq!(
        (named[0].id.clone(), named[0].pod.clone(), named[0].known_as.clone()),
        (id('2'), Some(pod), Some(("web".into(), 7)))
    );
}
