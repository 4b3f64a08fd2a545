//! What a faulty release costs. This test takes its time, so it runs once, with the lab's usual system;
//! `AIO_LAB_SUITE` runs it on another.

use std::{fs, time::Instant};

use aio_protocol::{
    release::build,
    update::{RootPhase, RootStatus, Verdict},
};
use aio_tests::artifacts::{VERSION, WORKER_FILE};
use anyhow::{Context, Result, ensure};
use std::time::Duration;

use super::{Fault, Publisher, Updated, runs};

#[test]
fn a_release_that_does_not_work_is_left_again_within_half_a_minute() -> Result<()> {
    let node = Updated::new("updates-faulty", 4)?;
    let faults: [(&str, Fault); 6] = [
        ("v1.1.1", |place| Publisher::override_unit(place, "[Service]\nExecStart=\nExecStart=/bin/false")),
        ("v1.1.2", |place| {
            Publisher::override_unit(place, "[Service]\nExecStart=\nExecStart=/bin/sleep 1000")
        }),
        ("v1.1.3", |place| {
            Publisher::override_unit(place, "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exit 78'")
        }),
        // After READY: it dies again and again.
        ("v1.1.4", |place| {
            Publisher::override_unit(
                place,
                "[Service]\nRestartSec=0\nExecStartPost=/bin/sh -c '(sleep 0.7; kill -9 $MAINPID) &'",
            )
        }),
        // It says that it is another version.
        ("v1.1.5", |place| {
            let worker = fs::read(place.join(WORKER_FILE))?;
            Ok(fs::write(place.join(WORKER_FILE), build::stamped(worker, "1.9.9").context("no place")?)?)
        }),
        // It runs, and reaches nobody.
        ("v1.1.6", |place| {
            Publisher::override_unit(
                place,
                "[Service]\nExecStart=\nExecStart=/usr/bin/env AIO_CONTROLLER_ENDPOINT=ws://127.0.0.1:9/ws/node /usr/local/lib/aio-worker/v1.1.6/aio-worker start",
            )
        }),
    ];
    let unit = node.machine.read("/etc/systemd/system/aio-worker.service")?;
    for (version, fault) in faults {
        node.publish(version, fault)?;
        let rollout = node.ask_for(version)?;
        let watching = [RootPhase::Switching, RootPhase::Proving, RootPhase::Probation, RootPhase::Reverting];
        let ended = |status: &RootStatus| {
            status.last.as_ref().is_some_and(|last| last.version.to_string() == version)
        };
        let seen =
            node.wait_for_root("root to switch", |status| watching.contains(&status.phase) || ended(status))?;
        let began = Instant::now();
        let (verdict, code) =
            if ended(&seen) { (seen.last.context("no end")?.verdict, None) } else { node.verdict(version)? };
        println!(
            "update: {version} is {verdict:?} ({code:?}) and left again after {:.1} s",
            began.elapsed().as_secs_f64()
        );
        assert_eq!(verdict, Verdict::Faulty, "{version}: {}", node.journals());
        ensure!(began.elapsed() < Duration::from_secs(30 + 5), "{version}");
        assert_eq!(runs(&node.machine)?, VERSION, "{version}");
        assert_eq!(node.machine.read("/etc/systemd/system/aio-worker.service")?, unit, "{version}");
        node.wait_for_end(&rollout)?;
    }
    Ok(())
}
