//! A day of a session in a minute: the clock is moved on whenever everybody waits, everything else
//! is as it is in the daemon. Worker and controller share the process, so what either keeps would
//! show.

use std::{fs, time::Duration};

use tokio::time::Instant;

use super::{controller::Controller, daemon::Daemon};

const DAY: Duration = Duration::from_secs(24 * 3600);
const BEATS: u64 = 100_000;
/// By then every buffer has its size, and the allocator's folders are laid.
const WARM: u64 = BEATS / 10;
/// A hundred bytes of each heartbeat that stay would be twenty times as much.
const SLACK: u64 = 512 * 1024;

/// The bytes of this process that are in memory.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

#[tokio::test]
async fn a_hundred_thousand_heartbeats_in_a_day_leave_nothing_behind() {
    let mut controller = Controller::start().await;
    let daemon = Daemon::start(&controller.url);
    let pace = DAY.as_millis() / u128::from(BEATS);
    let (mut peer, _) = controller.welcomed(pace.try_into().unwrap()).await;
    // Until here threads were waited for, whose time is everybody's.
    tokio::time::pause();
    // Metrics as often as every 60 s, as ever.
    peer.pace(pace.try_into().unwrap(), 60_000).await;
    let began = Instant::now();
    let (mut seq, mut warm) = (0, 0);
    let mut sizes = Vec::new();
    while seq < BEATS {
        let beat = peer.heartbeat().await;
        assert!(beat.seq > seq, "{} after {seq}", beat.seq);
        if beat.seq / WARM > seq / WARM {
            sizes.push(resident() / 1024);
            warm = sizes[0] * 1024;
        }
        seq = beat.seq;
    }
    let (grown, simulated) = (resident().saturating_sub(warm), began.elapsed());
    println!(
        "{BEATS} heartbeats in {} s of simulated time: {} KiB more than after {WARM}; resident at every tenth, in KiB: {sizes:?}",
        simulated.as_secs(),
        grown / 1024
    );
    // On a busy machine a heartbeat may come a little before its pace.
    assert!(simulated >= DAY * 95 / 100 && simulated < DAY * 11 / 10, "{simulated:?}");
    assert!(grown <= SLACK, "{grown} bytes more: {sizes:?} KiB");
    assert_eq!(daemon.snapshot(|_| true).await.session.sessions, 1, "it was one session");
}
