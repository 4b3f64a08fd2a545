//! Containers over time.

use aio_protocol::{
    container::{ContainerProblem, Pod},
    telemetry::GpuProcess,
};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A machine that is looked at every minute.
struct Bench {
    history: History,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { history: History::default(), now: Instant::now() }
    }

    fn look_at(&mut self, groups: &Groups) -> Vec<Container> {
        self.now += MINUTE;
        self.history.seen(groups, &[], self.now).told
    }

    fn look(&mut self, containers: &[Group]) -> Vec<Container> {
        self.look_at(&Groups { containers: containers.to_vec(), ..Groups::default() })
    }
}

/// A container's start.
fn docker(id: &str, number: u64) -> Group {
    Group { id: id.into(), number, oom_kills: Some(0), pids: vec![1], ..Group::default() }
}

/// A pod's container, as the kubelet counts it.
fn of_pod(name: &str, id: &str, number: u64, restarts: u32) -> Group {
    let pod = Pod { uid: "7c9".into(), name: Some("cart-0".into()), namespace: Some("shop".into()) };
    Group { pod: Some(pod), known_as: Some((name.into(), restarts)), ..docker(id, number) }
}

fn problems(told: &[Container]) -> Vec<ContainerProblem> {
    told.iter().flat_map(|container| container.problems.clone()).collect()
}

#[test]
fn a_container_that_is_started_again_and_again_says_so_until_it_has_been_quiet() {
    let mut bench = Bench::new();
    for number in 1..=3 {
        let told = bench.look(&[docker("a", number)]);
        assert_eq!((told[0].restarts, problems(&told)), (Some(number as u32 - 1), vec![]));
    }
    let told = bench.look(&[docker("a", 4)]);
    assert_eq!((told[0].restarts, problems(&told)), (Some(3), vec![ContainerProblem::Restarting]));
    // It waits to be started: nothing of it is to be seen, and it is told all the same.
    let told = bench.look(&[]);
    assert_eq!(
        (told[0].state, problems(&told)),
        (ContainerState::Exited, vec![ContainerProblem::Restarting])
    );
    let told = bench.look(&[docker("a", 5)]);
    assert_eq!((told.len(), told[0].state, told[0].restarts), (1, ContainerState::Running, Some(4)));
    let mut minutes = 0;
    while !problems(&bench.look(&[docker("a", 5)])).is_empty() {
        minutes += 1;
    }
    assert_eq!(minutes, 9, "ten minutes after its last start");
}

#[test]
fn what_is_gone_is_told_no_more_and_a_few_restarts_are_nothing() {
    let mut bench = Bench::new();
    bench.look(&[docker("a", 1)]);
    for number in [2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4] {
        assert_eq!(problems(&bench.look(&[docker("a", number)])), []);
    }
    assert!(bench.look(&[]).is_empty(), "nothing was wrong with it");

    // One with something wrong: for as long as it may come back.
    for number in 1..=4 {
        bench.look(&[docker("b", number)]);
    }
    let mut minutes = 0;
    while !bench.look(&[]).is_empty() {
        minutes += 1;
    }
    assert_eq!(minutes, 9);
    assert!(bench.history.places.is_empty());
}

#[test]
fn a_pods_container_keeps_its_place_whatever_its_id_and_the_kubelet_counts() {
    let mut bench = Bench::new();
    let told = bench.look(&[of_pod("web", "a", 1, 12)]);
    assert_eq!((told[0].restarts, problems(&told)), (Some(12), vec![]), "what was before is long ago");
    assert_eq!(problems(&bench.look(&[of_pod("web", "b", 2, 13)])), []);
    // Two within a minute.
    let told = bench.look(&[of_pod("web", "d", 4, 15)]);
    assert_eq!((told[0].restarts, problems(&told)), (Some(15), vec![ContainerProblem::Restarting]));
    assert_eq!(told[0].title(), "shop/cart-0/web");
}

#[test]
fn where_a_pods_containers_have_no_names_one_that_follows_another_is_a_restart() {
    let nameless = |id: &str, number| Group { known_as: None, ..of_pod("", id, number, 0) };
    let restarts = |told: Vec<Container>| told[0].restarts.unwrap();
    let mut bench = Bench::new();
    assert_eq!(restarts(bench.look(&[nameless("a", 1)])), 0);
    assert_eq!(restarts(bench.look(&[nameless("a", 1), nameless("b", 2)])), 0, "another of the pod's");
    assert_eq!(restarts(bench.look(&[nameless("a", 1)])), 0);
    assert_eq!(restarts(bench.look(&[nameless("a", 1), nameless("c", 3)])), 1);
}

#[test]
fn a_kill_for_memory_is_told_for_an_hour_and_one_from_before_is_counted_alone() {
    let killed = |number, kills| Group { oom_kills: Some(kills), ..docker("a", number) };
    let mut bench = Bench::new();
    let told = bench.look(&[killed(1, 2)]);
    assert_eq!((told[0].oom_kills, problems(&told)), (Some(2), vec![]));
    let told = bench.look(&[killed(1, 3)]);
    assert_eq!((told[0].oom_kills, problems(&told)), (Some(3), vec![ContainerProblem::OomKilled]));
    // What was before a restart counts on.
    let told = bench.look(&[killed(2, 0)]);
    assert_eq!((told[0].oom_kills, problems(&told)), (Some(3), vec![ContainerProblem::OomKilled]));
    let mut minutes = 0;
    while !problems(&bench.look(&[killed(2, 0)])).is_empty() {
        minutes += 1;
    }
    assert_eq!(minutes, 58);
}

#[test]
fn a_pod_knows_of_the_kill_that_ended_its_container() {
    let groups = |containers: &[Group], kills| Groups {
        containers: containers.to_vec(),
        pod_oom_kills: HashMap::from([("7c9".to_owned(), kills)]),
    };
    let (web, log) = (|id, number, restarts| of_pod("web", id, number, restarts), of_pod("log", "z", 9, 0));
    let mut bench = Bench::new();
    assert_eq!(problems(&bench.look_at(&groups(&[web("a", 1, 0), log.clone()], 4))), [], "long ago");
    let told = bench.look_at(&groups(&[web("b", 2, 1), log.clone()], 5));
    assert_eq!((told[0].name.as_deref(), told[0].oom_kills), (Some("web"), Some(1)));
    assert_eq!(problems(&told), [ContainerProblem::OomKilled]);
    // A kill that its container tells of itself is no other, whichever of the two was read first.
    let killed = Group { oom_kills: Some(1), ..log };
    bench.look_at(&groups(&[web("b", 2, 1), killed.clone()], 5));
    let told = bench.look_at(&groups(&[web("b", 2, 1), killed], 6));
    let kills: Vec<_> = told.iter().map(|it| (it.name.clone().unwrap(), it.oom_kills.unwrap())).collect();
    assert_eq!(kills, [("web".to_owned(), 1), ("log".to_owned(), 1)]);
}

#[test]
fn a_containers_share_of_the_processors_is_that_of_the_last_minute() {
    let busy = |micros| Group { cpu_micros: Some(micros), ..docker("a", 1) };
    let mut bench = Bench::new();
    let told = bench.look(&[busy(5_000_000)]);
    assert_eq!((told[0].cpu_usage, told[0].cpu_seconds), (None, Some(5.0)));
    assert_eq!(bench.look(&[busy(95_123_456)])[0].cpu_usage, Some(150.2));
    assert_eq!(bench.look(&[busy(95_123_456)])[0].cpu_usage, Some(0.0));
}

#[test]
fn a_gpu_is_the_containers_whose_process_uses_it() {
    let gpu = |device: &str, pids: &[u32]| GpuDetail {
        processes: pids.iter().map(|&pid| GpuProcess { pid, memory_used: None }).collect(),
        ..GpuDetail::unknown(device)
    };
    let with = |id: &str, pids: &[u32]| Group { pids: pids.to_vec(), ..docker(id, 1) };
    let groups = Groups {
        containers: vec![with("a", &[1, 2]), with("b", &[3]), with("c", &[4])],
        ..Groups::default()
    };
    let gpus = [gpu("10", &[1, 2]), gpu("2", &[1, 3, 99])];
    let told = History::default().seen(&groups, &gpus, Instant::now());
    let of: Vec<_> = told.told.iter().map(|it| (it.id.as_str(), it.gpus.clone())).collect();
    assert_eq!(
        of,
        [("a", vec!["2".to_owned(), "10".to_owned()]), ("b", vec!["2".to_owned()]), ("c", vec![])]
    );
}

#[test]
fn a_machine_full_of_containers_tells_of_those_that_matter_and_counts_the_rest() {
    let container = |number: u64| Group { memory_used: Some(number), ..docker(&format!("{number:03}"), 1) };
    let mut containers: Vec<_> = (0..100).map(container).collect();
    let mut bench = Bench::new();
    bench.look(&containers);
    containers[3].oom_kills = Some(1);
    let all = bench.history.seen(
        &Groups { containers: containers.clone(), ..Groups::default() },
        &[],
        bench.now + MINUTE,
    );
    let ids: Vec<_> = all.told.iter().map(|it| it.id.as_str()).take(3).collect();
    assert_eq!(ids, ["003", "099", "098"]);
    assert_eq!((all.told.len(), all.left_out, all.active), (MAX_CONTAINERS, 36, 100));
}
