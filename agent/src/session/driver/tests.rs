//! The watchdog hears from the loop only as long as somebody looks at the machine.

use std::sync::Mutex;

use aio_host::layout::Layout;

use super::*;
use crate::{
    config::Flags,
    config::tests::token,
    session::reporter::first_snapshot,
    telemetry::messages::tests::identity,
    update::{errands::Sight, memory::Memory, places::Places},
};

struct Heard(Arc<Mutex<Vec<String>>>);

impl Notifier for Heard {
    fn tell(&self, state: NotifyState<'_>) {
        self.0.lock().unwrap().push(state.to_string());
    }

    fn watchdog(&self) -> Option<Duration> {
        Some(Duration::from_millis(40))
    }
}

#[tokio::test]
async fn nobody_tells_the_watchdog_that_all_is_well_when_nobody_looks_at_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "").unwrap();
    let flags = Flags {
        token: Some(token().into()),
        config: Some(config),
        state_dir: Some(folder.path().into()),
        ..Flags::default()
    };
    let config = WorkerConfig::load(&flags, &|_| None).unwrap();
    let now = tokio::time::Instant::now();
    let heard = Heard(Arc::default());
    let words = heard.0.clone();
    let wellness = || words.lock().unwrap().iter().filter(|word| *word == "WATCHDOG=1").count();
    let (_gatherer, readings) = watch::channel(Readings::default());
    let long_ago = now.checked_sub(Duration::from_secs(200)).unwrap();
    let (concluded, rounds) = watch::channel(long_ago);
    let wiring = Wiring {
        notifier: Box::new(heard),
        readings,
        rounds,
        next_beat: watch::Sender::new(None),
        snapshots: watch::Sender::new(first_snapshot(
            &identity(),
            "",
            Timestamp::from_millis(0),
            super::now(),
        )),
        reload: Reload::never(),
        configs: watch::Sender::new(Arc::new(config.clone())),
        updates: Beginning {
            places: Places::of(Layout::under(folder.path()), folder.path(), folder.path()),
            memory: Memory::default(),
            sight: Sight::default(),
        },
        account: Default::default(),
    };
    let stop = CancellationToken::new();
    let driver = Driver::new(config, identity(), Timings::default(), wiring);
    let running = tokio::spawn(driver.run(stop.clone()));

    // The loop turns: ten times, a watchdog would have been told.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(words.lock().unwrap().first().map(String::as_str), Some("READY=1"));
    assert_eq!(wellness(), 0);

    concluded.send_replace(tokio::time::Instant::now());
    let told = async {
        while wellness() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("the watchdog is not told");
    stop.cancel();
    running.await.unwrap();
}
