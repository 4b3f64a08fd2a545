//! What systemd's manager tells of the machine, between who watches it and the session: a service
//! that comes and goes must not have the inventory told again and again. Decides when others are
//! told; what they are told is always the newest.

use std::{sync::Arc, time::Duration};

use aio_host::systemd::{self, ManagerReport};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{Pace, Readings};

/// The latest, or none as long as nobody has said anything.
pub type Latest = Option<Arc<ManagerReport>>;

/// No worker waits longer than this for its machine's manager before it registers.
const FIRST: Duration = Duration::from_secs(3);

/// From a change to the next one that is told, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// Watches this machine's manager for as long as the handle lives.
pub fn of_this_machine() -> (watch::Receiver<Latest>, AbortOnDropHandle<()>) {
    let (sender, told) = watch::channel(None);
    let tell = move |report| {
        sender.send_replace(Some(Arc::new(report)));
    };
    (told, AbortOnDropHandle::new(tokio::spawn(systemd::watch(tell))))
}

/// Puts what is watched among the readings, at a pace that the controller can bear. Ends when
/// nobody watches any more.
pub(crate) async fn follow(mut watched: watch::Receiver<Latest>, readings: watch::Sender<Readings>) {
    if timeout(FIRST, watched.wait_for(Option::is_some)).await.is_err() {
        tracing::debug!("systemd did not say in time how the services stand");
        put(&readings, Some(Arc::new(ManagerReport::silent())));
        if watched.wait_for(Option::is_some).await.is_err() {
            return;
        }
    }
    let mut pace = Pace::new(PAUSES);
    put(&readings, watched.borrow_and_update().clone());
    while watched.changed().await.is_ok() {
        sleep_until(pace.next()).await;
        if put(&readings, watched.borrow_and_update().clone()) {
            pace = pace.told(Instant::now());
        }
    }
}

/// Whether that is news.
fn put(readings: &watch::Sender<Readings>, told: Latest) -> bool {
    readings.send_if_modified(|readings| {
        let changed = readings.systemd != told;
        readings.systemd = told;
        changed
    })
}

#[cfg(test)]
mod tests {
    use aio_protocol::service::Service;

    use super::*;

    #[tokio::test]
    async fn the_first_change_is_told_at_once_and_of_those_that_follow_soon_the_newest() {
        let service = |restarts| Service { restarts: Some(restarts), ..Service::unknown("x") };
        let report = |restarts| {
            Some(Arc::new(ManagerReport { services: vec![service(restarts)], ..ManagerReport::default() }))
        };
        let (watched, services) = watch::channel(None);
        let (sender, mut readings) = watch::channel(Readings::default());
        let following = AbortOnDropHandle::new(tokio::spawn(follow(services, sender)));
        watched.send_replace(report(1));
        let told =
            timeout(FIRST * 2, readings.wait_for(|readings| readings.systemd.is_some())).await.unwrap();
        assert_eq!(told.unwrap().systemd, report(1));
        watched.send_replace(report(2));
        timeout(FIRST, readings.changed()).await.unwrap().unwrap();
        assert_eq!(readings.borrow().systemd, report(2));
        let began = Instant::now();
        for restarts in 3..100 {
            watched.send_replace(report(restarts));
            tokio::task::yield_now().await;
        }
        timeout(PAUSES.0 * 4, readings.changed()).await.unwrap().unwrap();
        assert_eq!(readings.borrow().systemd, report(99));
        assert!(began.elapsed() + Duration::from_secs(1) > PAUSES.0, "told after {:?}", began.elapsed());
        drop(following);
    }
}
