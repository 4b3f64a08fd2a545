//! How the machine's services stand, between who watches them and the session: a service that comes and goes must not have the inventory told again
//! and again. Decides when others are told; what they are told is always the newest.

use std::{sync::Arc, time::Duration};

use aio_host::systemd::{unknown_services, watch_services};
use aio_protocol::service::Service;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::Readings;

/// All of them, or none as long as nobody has said anything.
pub type Services = Option<Arc<Vec<Service>>>;

/// No worker waits longer than this for its machine's services before it registers.
const FIRST: Duration = Duration::from_secs(3);

/// From a change to the next one that is told, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// Watches this machine's services for as long as the handle lives.
pub fn of_this_machine() -> (watch::Receiver<Services>, AbortOnDropHandle<()>) {
    let (sender, services) = watch::channel(None);
    let tell = move |services| {
        sender.send_replace(Some(Arc::new(services)));
    };
    (services, AbortOnDropHandle::new(tokio::spawn(watch_services(tell))))
}

/// Puts what is watched among the readings, at a pace that the controller can bear. Ends when nobody watches any more.
pub(crate) async fn follow(mut watched: watch::Receiver<Services>, readings: watch::Sender<Readings>) {
    if timeout(FIRST, watched.wait_for(Option::is_some)).await.is_err() {
        tracing::debug!("systemd did not say in time how the services stand");
        put(&readings, Some(Arc::new(unknown_services())));
        if watched.wait_for(Option::is_some).await.is_err() {
            return;
        }
    }
    let mut pace = Pace::default();
    put(&readings, watched.borrow_and_update().clone());
    while watched.changed().await.is_ok() {
        sleep_until(pace.next()).await;
        if put(&readings, watched.borrow_and_update().clone()) {
            pace = pace.told(Instant::now());
        }
    }
}

/// Whether that is news.
fn put(readings: &watch::Sender<Readings>, services: Services) -> bool {
    readings.send_if_modified(|readings| {
        let changed = readings.services != services;
        readings.services = services;
        changed
    })
}

/// How soon after one change the next may be told: twice as long each time, until there has been quiet for as long again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Pace {
    last: Option<(Instant, Duration)>,
}

impl Pace {
    fn told(self, now: Instant) -> Self {
        let pause = match self.last {
            Some((last, pause)) if now < last + pause * 2 => (pause * 2).min(PAUSES.1),
            _ => PAUSES.0,
        };
        Self { last: Some((now, pause)) }
    }

    /// Before this nothing is told.
    fn next(self) -> Instant {
        self.last.map_or_else(Instant::now, |(last, pause)| last + pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_without_end_is_told_ever_more_seldom_and_after_a_quiet_time_soon_again() {
        let began = Instant::now();
        let mut pace = Pace::default();
        let mut pauses = vec![];
        let mut now = began;
        for _ in 0..6 {
            pace = pace.told(now);
            pauses.push((pace.next() - now).as_secs());
            now = pace.next();
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        now += Duration::from_secs(60);
        assert_eq!((pace.told(now).next() - now).as_secs(), 5);
    }

    #[tokio::test]
    async fn the_first_change_is_told_at_once_and_of_those_that_follow_soon_the_newest() {
        let service =
            |restarts| Some(Arc::new(vec![Service { restarts: Some(restarts), ..Service::unknown("x") }]));
        let (watched, services) = watch::channel(None);
        let (sender, mut readings) = watch::channel(Readings::default());
        let following = AbortOnDropHandle::new(tokio::spawn(follow(services, sender)));
        watched.send_replace(service(1));
        let told =
            timeout(FIRST * 2, readings.wait_for(|readings| readings.services.is_some())).await.unwrap();
        assert_eq!(told.unwrap().services, service(1));
        watched.send_replace(service(2));
        timeout(FIRST, readings.changed()).await.unwrap().unwrap();
        assert_eq!(readings.borrow().services, service(2));
        let began = Instant::now();
        for restarts in 3..100 {
            watched.send_replace(service(restarts));
            tokio::task::yield_now().await;
        }
        timeout(PAUSES.0 * 4, readings.changed()).await.unwrap().unwrap();
        assert_eq!(readings.borrow().services, service(99));
        assert!(began.elapsed() + Duration::from_secs(1) > PAUSES.0, "told after {:?}", began.elapsed());
        drop(following);
    }
}
