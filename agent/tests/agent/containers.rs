//! Containers of the machine, from its control groups to whoever hears of them.

use std::fs;

use aio_protocol::{
    container::{ContainerEngine, ContainerState},
    wire::WorkerMessage,
};
use aio_worker::session::machine::Timings;

use super::{
    controller::Controller,
    daemon::{Daemon, folder_with, token},
};

#[tokio::test]
async fn containers_are_counted_in_heartbeats_and_told_with_the_metrics_and_on_the_status_socket() {
    let mut controller = Controller::start().await;
    let folder = folder_with(&token(&controller.url, "first"));
    let group = |path: &str, pids: &str| {
        let group = folder.path().join("machine/sys/fs/cgroup").join(path);
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("cgroup.procs"), pids).unwrap();
        group
    };
    fs::write(group("", "1\n").join("cgroup.controllers"), "cpu memory").unwrap();
    group("system.slice/ssh.service", "700\n");
    let id = "ab".repeat(32);
    let container = group(&format!("system.slice/docker-{id}.scope"), "812\n");
    fs::write(container.join("memory.current"), "4096\n").unwrap();

    let daemon = Daemon::on(&folder, Timings::default(), None);
    let mut peer = controller.peer().await;
    peer.acknowledge_connection().await;
    peer.register().await;
    peer.pace(300, 300).await;
    assert_eq!(peer.heartbeat().await.active_deployments, 1);
    let told = peer
        .until(|message| match message {
            WorkerMessage::Metrics(metrics) => metrics.containers,
            WorkerMessage::Register(_) => panic!("a container is no part of the inventory"),
            _ => None,
        })
        .await;
    let [one] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(
        (one.id.as_str(), one.engine, one.state),
        (&*id, ContainerEngine::Docker, ContainerState::Running)
    );
    assert_eq!((one.memory_used, one.oom_kills, one.restarts), (Some(4096), None, Some(0)));
    let snapshot = daemon.snapshot(|snapshot| snapshot.containers.is_some()).await;
    assert_eq!((snapshot.containers, snapshot.containers_left_out), (Some(told), 0));
}
