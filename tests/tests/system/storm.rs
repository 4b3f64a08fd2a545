//! A small storm of events; the full size is `cargo xtask load events`.

use std::time::Duration;

use aio_tests::{
    artifacts::Artifacts,
    storm::{self, Group, Plan},
};
use anyhow::Result;

#[test]
fn no_event_is_lost_or_out_of_order_while_noti_fails_and_the_controller_is_killed() -> Result<()> {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let plan = Plan {
        nodes: 100,
        workers: 10,
        transitions: 3000,
        kills: 5,
        group: None,
        faults: true,
        rate: None,
        seed,
        patience: Duration::from_secs(120),
    };
    let report = storm::run(&Artifacts::release()?, &plan)?;
    println!("{report}");
    assert_eq!(report.kept, report.transitions);
    assert!(report.transitions >= plan.transitions, "{report}");
    assert_eq!(report.restarts.len(), plan.kills);
    for answer in ["202", "500", "reset"] {
        assert!(report.answers.contains_key(answer), "the storm was a breeze: {report}");
    }
    Ok(())
}

#[test]
fn an_event_is_with_noti_soon_after_its_cause() -> Result<()> {
    let plan = Plan {
        nodes: 200,
        workers: 0,
        transitions: 1000,
        kills: 0,
        group: None,
        faults: false,
        rate: Some(200.0),
        seed: 1,
        patience: Duration::from_secs(60),
    };
    let report = storm::run(&Artifacts::release()?, &plan)?;
    println!("{report}");
    // A bound that a busy machine keeps; the figure that counts is measured on a quiet one.
    assert!(report.percentile(0.5) < Duration::from_millis(50), "{report}");
    assert!(report.percentile(0.99) < Duration::from_millis(500), "{report}");
    Ok(())
}

/// Three controllers on one database, of which some are killed, and the rest as `group` says.
fn storm_over_three(kills: usize, group: Group) -> Result<()> {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let plan = Plan {
        nodes: 60,
        workers: 20,
        transitions: 800,
        kills,
        group: Some(group),
        faults: true,
        rate: None,
        seed,
        patience: Duration::from_secs(120),
    };
    let report = storm::run(&Artifacts::release()?, &plan)?;
    println!("{report}");
    assert_eq!(report.kept, report.transitions);
    assert!(report.transitions >= plan.transitions, "{report}");
    assert!(report.doubles > 0, "nobody came twice: {report}");
    Ok(())
}

#[test]
fn no_event_is_lost_or_out_of_order_while_any_of_several_controllers_and_their_database_are_killed()
-> Result<()> {
    storm_over_three(3, Group { controllers: 3, stops: 0, cuts: 0, crashes: 1 })
}

#[test]
fn no_node_has_two_owners_while_controllers_stand_still_and_are_cut_off_for_longer_than_they_are_missed()
-> Result<()> {
    storm_over_three(0, Group { controllers: 3, stops: 1, cuts: 1, crashes: 0 })
}
