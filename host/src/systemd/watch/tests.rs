//! Against a manager that speaks systemd's protocol: what is told, when, and what outlives a bus.

use std::{collections::VecDeque, fs};

use tokio::sync::mpsc;

use super::*;
use crate::{
    layout::Layout,
    systemd::{UnitState, fake::FakeSystemd},
};

const LONG: Duration = Duration::from_secs(20);

/// A machine whose services are watched.
struct Bench {
    root: tempfile::TempDir,
    fake: FakeSystemd,
    told: mpsc::UnboundedReceiver<ManagerReport>,
    dials: mpsc::UnboundedSender<Connection>,
    watcher: JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

async fn manager_of(root: &Path) -> (FakeSystemd, Connection) {
    let (fake, systemd) = FakeSystemd::start(&Layout::under(root)).await.unwrap();
    (fake, systemd.into_connection())
}

impl Bench {
    /// A machine with these unit files.
    async fn with(units: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("usr/lib/systemd/system");
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(root.path().join("var/lib/dpkg")).unwrap();
        for unit in units {
            fs::write(folder.join(unit), "[Service]\n").unwrap();
        }
        let status = "Package: docker.io\nStatus: install ok installed\nVersion: 20.10.24+dfsg1-1\n";
        fs::write(root.path().join("var/lib/dpkg/status"), status).unwrap();
        let (fake, connection) = manager_of(root.path()).await;
        let (dials, mut waiting) = mpsc::unbounded_channel();
        dials.send(connection).unwrap();
        let (sender, told) = mpsc::unbounded_channel();
        let folder = root.path().to_owned();
        let watcher = tokio::spawn(async move {
            let mut queue = VecDeque::new();
            let dial = || {
                queue.extend(waiting.try_recv());
                let next = queue.pop_front();
                async move { next.ok_or(SystemdError::Unreachable(timed_out())) }
            };
            watch_over(dial, &folder, |report| sender.send(report).unwrap()).await;
        });
        Self { root, fake, told, dials, watcher }
    }

    async fn next(&mut self) -> Vec<Service> {
        let report = timeout(LONG, self.told.recv()).await.expect("nothing is told").unwrap();
        assert_eq!(report.virtualization.as_deref(), Some("kvm"));
        report.services
    }

    async fn docker(&mut self) -> Service {
        let services = self.next().await;
        services.into_iter().find(|service| service.name == "docker.service").unwrap()
    }
}

fn active(unit: &mut UnitState) {
    unit.active_state = "active".into();
}

#[tokio::test]
async fn how_all_services_stand_is_told_at_once_and_no_unit_is_loaded_for_it() {
    let mut bench = Bench::with(&["docker.service", "podman.socket"]).await;
    let told = bench.next().await;
    let states: Vec<_> = told.iter().map(|service| (service.name.as_str(), service.state)).collect();
    let expected = [
        ("docker.service", ServiceState::Inactive),
        ("containerd.service", ServiceState::Absent),
        ("podman.socket", ServiceState::Inactive),
        ("nvidia-persistenced.service", ServiceState::Absent),
        ("nvidia-fabricmanager.service", ServiceState::Absent),
        ("aio-worker.service", ServiceState::Absent),
    ];
    assert_eq!(states, expected);
    assert_eq!(told[0].version.as_deref(), Some("20.10.24+dfsg1"));
    assert!(!bench.fake.calls().iter().any(|call| call.starts_with("LoadUnit")), "{:?}", bench.fake.calls());
}

#[tokio::test]
async fn a_service_that_starts_fails_and_is_restarted_is_told_each_time() {
    let mut bench = Bench::with(&["docker.service"]).await;
    assert_eq!(bench.docker().await.state, ServiceState::Inactive);
    bench.fake.announce("docker.service", active).await.unwrap();
    let docker = bench.docker().await;
    assert_eq!(
        (docker.state, docker.since),
        (ServiceState::Active, Some("2025-12-11T12:00:00Z".parse().unwrap()))
    );
    let crashed = |unit: &mut UnitState| {
        unit.active_state = "activating".into();
        unit.sub_state = "auto-restart".into();
        unit.result = "exit-code".into();
        unit.restarts = 1;
    };
    bench.fake.announce("docker.service", crashed).await.unwrap();
    let docker = bench.docker().await;
    assert_eq!((docker.state, docker.restarts), (ServiceState::Failed, Some(1)));
}

#[tokio::test]
async fn an_announcement_of_what_did_not_change_is_nobodys_news() {
    let mut bench = Bench::with(&["docker.service"]).await;
    bench.next().await;
    bench.fake.announce("docker.service", active).await.unwrap();
    assert_eq!(bench.docker().await.state, ServiceState::Active);
    let reads = || bench.fake.calls().iter().filter(|call| *call == "GetUnit(docker.service)").count();
    let before = reads();
    bench.fake.announce("docker.service", |_| {}).await.unwrap();
    let read_again = async {
        while reads() == before {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, read_again).await.expect("nobody looks");
    bench.fake.announce("docker.service", |unit| unit.restarts = 7).await.unwrap();
    assert_eq!(bench.docker().await.restarts, Some(7), "the next that is told is the change");
}

#[tokio::test]
async fn a_bus_that_is_restarted_costs_nothing_but_what_changed_meanwhile() {
    let mut bench = Bench::with(&["docker.service"]).await;
    assert_eq!(bench.docker().await.state, ServiceState::Inactive);
    let (fake, connection) = manager_of(bench.root.path()).await;
    fake.change("docker.service", active);
    let before = std::mem::replace(&mut bench.fake, fake);
    before.hang_up().await.unwrap();
    bench.dials.send(connection).unwrap();
    assert_eq!(bench.docker().await.state, ServiceState::Active, "it was told that nothing is known");
}

#[tokio::test]
async fn without_a_bus_that_is_told_and_a_bus_that_comes_is_found() {
    let mut bench = Bench::with(&["docker.service"]).await;
    let (fake, connection) = manager_of(bench.root.path()).await;
    bench.watcher.abort();
    let (sender, mut told) = mpsc::unbounded_channel();
    let mut dials = VecDeque::from([None, None, Some(connection)]);
    let folder = bench.root.path().to_owned();
    bench.watcher = tokio::spawn(async move {
        let dial = || {
            let next = dials.pop_front().flatten();
            async move { next.ok_or(SystemdError::Unreachable(timed_out())) }
        };
        watch_over(dial, &folder, |report| sender.send(report).unwrap()).await;
    });
    let first = timeout(LONG, told.recv()).await.unwrap().unwrap();
    assert_eq!(first, ManagerReport::silent());
    assert!(
        first.services.iter().all(|service| service.state == ServiceState::Unknown)
            && !first.services.is_empty()
    );
    let then = timeout(LONG, told.recv()).await.unwrap().unwrap();
    assert_eq!(
        then.services[0].state,
        ServiceState::Inactive,
        "that nothing is known is told once: {then:?}"
    );
    drop(fake);
}

#[tokio::test]
async fn where_there_is_no_systemd_there_are_no_services_and_nobody_asks_again() {
    let mut told = vec![];
    let dial = || async { Err(SystemdError::NotBooted) };
    watch_over(dial, Path::new("/"), |report| told.push(report)).await;
    assert_eq!(told, [ManagerReport::default()]);
}

#[test]
fn a_units_path_is_escaped_as_systemd_does() {
    assert_eq!(
        unit_path("nvidia-persistenced.service"),
        "/org/freedesktop/systemd1/unit/nvidia_2dpersistenced_2eservice"
    );
}
