//! The scenarios at sizes that fit among the other tests. The full sizes, and the figures that the
//! product promises, are `cargo xtask load fleet`'s and `cargo xtask load edge`'s.

use std::time::Duration;

use aio_fleet::{Dialect, EdgeScenario, RolloutScenario, Scenario};
use aio_tests::artifacts::Artifacts;

#[tokio::test(flavor = "multi_thread")]
async fn a_small_fleet_survives_its_controllers_death_without_a_false_offline() {
    survives(false, Dialect::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_too() {
    survives(true, Dialect::Own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_aiwms_dialect_too() {
    survives(false, Dialect::Aiwm).await;
}

fn small(workers: usize, tls: bool, dialect: Dialect) -> Scenario {
    Scenario {
        workers,
        tls,
        dialect,
        gpus: 8,
        lease: Duration::from_secs(10),
        pace: Duration::from_millis(500),
        phase: Duration::from_secs(2),
        ramp: Duration::from_secs(1),
        back: Duration::from_secs(60),
    }
}

async fn survives(tls: bool, dialect: Dialect) {
    let scenario = small(300, tls, dialect);
    let controller = Artifacts::release().unwrap().controller().unwrap();
    let report = aio_fleet::run(&scenario, controller).await.unwrap();
    println!("{report}");
    assert_eq!((report.disconnected, report.connected, report.online_after_lease), (0, 300, 300), "{report}");
    assert!(report.beats > 800 && report.pinged_beats > 800, "{report}");
    assert!(report.pongs >= report.pinged_beats * 9 / 10, "{report}");
    // A small fleet shares the server's own growth among few, and a busy machine costs more: these
    // find a leak, not a regression of a tenth.
    let (kibibytes, micros) = if dialect == Dialect::Own { (64, 200) } else { (128, 1000) };
    assert!(report.bytes_per_worker() < kibibytes * 1024, "{report}");
    assert!(report.beat_cost.total() < Duration::from_micros(micros), "{report}");
    assert!(report.back_in < Duration::from_secs(30), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_fleet_over_three_controllers_survives_the_leaders_death_without_a_false_offline() {
    let scenario = small(150, false, Dialect::Own);
    let controller = Artifacts::release().unwrap().controller().unwrap();
    let report = aio_fleet::run_group(&scenario, 3, controller).await.unwrap();
    println!("{report}");
    assert_eq!((report.disconnected, report.told, report.online_after_lease), (0, 300, 150), "{report}");
    assert!(report.spread.len() == 3 && report.beats > 400, "{report}");
    assert!(report.back_in < Duration::from_secs(30), "{report}");
}

fn rollout(faulty_per_mille: u32) -> RolloutScenario {
    RolloutScenario {
        nodes: 120,
        late: 5,
        pinned: 3,
        faulty_per_mille,
        kills: 4,
        canaries: "2".to_owned(),
        in_flight: "10".to_owned(),
        bound: Duration::from_secs(120),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_loses_nobody_and_does_nothing_twice_though_its_controller_is_killed() {
    let controller = Artifacts::release().unwrap().controller().unwrap();
    let report = aio_fleet::roll_out(&rollout(0), controller).await.unwrap();
    println!("{report}");
    assert_eq!(
        (report.state.as_str(), report.arrived, report.late_arrived),
        ("completed", 114, 5),
        "{report}"
    );
    assert_eq!((report.twice, report.unwanted, report.kills), (0, 0, 4), "{report}");
    assert_eq!((report.updated_events, report.disconnected_events), (119, 0), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_faulty_on_all_nodes_reaches_the_canaries_alone() {
    let controller = Artifacts::release().unwrap().controller().unwrap();
    let report = aio_fleet::roll_out(&rollout(1000), controller).await.unwrap();
    println!("{report}");
    assert_eq!((report.state.as_str(), report.criterion.as_deref()), ("halted", Some("faultyCanary")));
    assert!((1..=2).contains(&report.switched) && report.twice == 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn good_workers_and_a_good_user_notice_little_of_all_attacks() {
    // Times are the full size's: a machine that runs other tests beside this is slower than any
    // attack makes it.
    let scenario = EdgeScenario {
        workers: 30,
        phase: Duration::from_millis(500),
        release: None,
        latest_beat: Duration::from_secs(4),
        p99: Duration::from_secs(4),
        only: String::new(),
    };
    let controller = Artifacts::release().unwrap().controller().unwrap();
    let report = aio_fleet::attack_and_watch(&scenario, controller).await.unwrap();
    println!("{report}");
    assert_eq!(report.breaches(), [""; 0], "{report}");
}

#[test]
fn the_demo_of_updates_ends_with_one_release_everywhere_and_the_faulty_one_at_its_canary() {
    let mut demo = std::process::Command::new(env!("CARGO_BIN_EXE_aio-demo-update"));
    demo.env("AIO_BIN_DIR", Artifacts::release().unwrap().folder());
    let output = demo.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("completed  10 succeeded"), "{said}");
    assert!(said.contains("demo: v1.2.0 came to 1 of 10 nodes, and was left again there"), "{said}");
}
