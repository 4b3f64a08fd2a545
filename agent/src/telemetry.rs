//! What the worker measures: one side task asks the machine and the driver, each behind a deadline,
//! and leaves the answers where the session loop finds the latest. No question here can delay a
//! heartbeat. What messages make of the answers is in `messages`.

mod blocking_probe;
mod containers;
pub mod handover;
pub mod manager;
pub mod messages;
mod pace;
mod survey;
mod verdict;

use std::{sync::Arc, time::Duration};

use aio_host::{
    cgroups::{ContainerProbe, Groups},
    facts::{HostFacts, HostProbe, HostSample},
    gpu::{GpuReport, GpuWatcher},
    systemd,
};
use aio_protocol::telemetry::MachineProblem;
use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

pub(crate) use pace::Pace;
pub(crate) use verdict::Verdicts;

use crate::{
    containers::{Containers, History},
    health::{Judge, Judged, Memory, Thresholds},
    limits::Measured,
};
use blocking_probe::BlockingProbe;
use containers::{Look, Watch};
use manager::Latest;
use survey::Survey;

/// How much earlier than a heartbeat its numbers are asked for: the driver's thread may be
/// listening for a second before it answers.
const LEAD: Duration = Duration::from_millis(1500);

/// No closer together than this, however fast the heartbeats.
const CLOSEST: Duration = Duration::from_secs(1);

/// No further apart than this, however slow the heartbeats: with the driver's time to answer, a
/// driver that hangs is known to within half a minute.
const IDLE: Duration = Duration::from_secs(20);

/// How long the machine and the driver may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long systemd may take to answer who asks once.
const BUS_PATIENCE: Duration = Duration::from_secs(2);

/// After three rounds of which each took as long as one can, without an end of any, nobody gathers
/// any more. A driver that hangs is no such end: that it does not answer concludes a round.
const LOST: Duration = Duration::from_secs(3 * (IDLE.as_secs() + PATIENCE.as_secs()));

/// Whether a round that ended then shows that somebody still gathers.
pub fn gathers(concluded: Instant, now: Instant) -> bool {
    now.saturating_duration_since(concluded) <= LOST
}

/// Who answers.
pub struct Probes {
    /// The machine's load.
    pub load: Box<dyn HostProbe>,
    /// The machine's facts: another probe, because reading disks may hang and the load must not wait for it.
    pub facts: Box<dyn HostProbe>,
    /// The machine's containers.
    pub containers: Box<dyn ContainerProbe>,
    /// The GPUs.
    pub gpus: GpuWatcher,
    /// systemd's manager.
    pub systemd: watch::Receiver<Latest>,
}

/// The latest answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Readings {
    /// The machine's facts.
    pub facts: Option<Arc<HostFacts>>,
    /// The machine's load.
    pub load: Option<HostSample>,
    /// The GPUs as they are told.
    pub gpu: Option<Arc<Judged>>,
    /// The containers as they are told.
    pub containers: Option<Arc<Containers>>,
    /// What is wrong with the machine itself.
    pub problems: Option<Arc<[MachineProblem]>>,
    /// What systemd says: how the services stand, or that nobody could say.
    pub systemd: Latest,
}

impl Readings {
    /// Whether there is enough to register with.
    pub fn complete(&self) -> bool {
        self.facts.is_some() && self.gpu.is_some() && self.systemd.is_some()
    }
}

/// Asks for ever, shortly before each heartbeat that `next_beat` announces, and says in `rounds`
/// when each round has ended.
pub(crate) async fn gather(
    probes: Probes,
    mut verdicts: Verdicts,
    mut next_beat: watch::Receiver<Option<std::time::Instant>>,
    readings: watch::Sender<Readings>,
    rounds: watch::Sender<Instant>,
) {
    let Probes { load, facts, containers, gpus, systemd } = probes;
    let mut reports = gpus.reports();
    let _manager = AbortOnDropHandle::new(tokio::spawn(manager::follow(systemd, readings.clone())));
    let mut load = BlockingProbe::new(load, |probe| probe.sample());
    let mut survey = Survey::new(facts);
    let mut watch = Watch::new(containers);
    if readings.borrow().gpu.is_some() {
        // Somebody has left word of the GPUs: what can be told does not wait for their driver.
        let (sample, facts) = tokio::join!(load.ask(PATIENCE), survey.due(Instant::now()));
        readings.send_modify(|readings| (readings.load, readings.facts) = (sample, facts));
    }
    loop {
        let began = Instant::now();
        let beat = *next_beat.borrow();
        let (sample, report, news, look) =
            tokio::join!(load.ask(PATIENCE), gpus.report(PATIENCE), survey.due(began), watch.due(began));
        let facts_now = news.or_else(|| readings.borrow().facts.clone());
        let judged = verdicts.of(&report, facts_now.as_deref()).await;
        let containers = match look {
            Look::NotDue => readings.borrow().containers.clone(),
            Look::Silent => None,
            Look::Seen(groups) => Some(Arc::new(watch.judge(&groups, &judged.details, began))),
        };
        let manager = readings.borrow().systemd.clone();
        let problems = verdicts.of_machine(Measured {
            facts: facts_now.as_deref(),
            load: sample.as_ref(),
            services: manager.as_deref().map(|manager| manager.services.as_slice()),
        });
        readings.send_if_modified(|readings| {
            let fresh = Readings {
                facts: facts_now,
                load: sample.or_else(|| readings.load.clone()),
                problems: Some(problems.into()),
                gpu: Some(Arc::new(judged)),
                containers,
                systemd: readings.systemd.clone(),
            };
            let changed = *readings != fresh;
            *readings = fresh;
            changed
        });
        rounds.send_replace(Instant::now());
        reports.mark_unchanged();
        if readings.is_closed()
            || !wait_for_next(&mut next_beat, &mut reports, &mut verdicts, beat, began).await
        {
            return;
        }
    }
}

/// Asks once, without the load, and waits no longer than `patience`. Who looks once knows of no
/// error that is not to be seen any more.
pub async fn look(
    facts: Box<dyn HostProbe>,
    containers: Box<dyn ContainerProbe>,
    gpus: &GpuWatcher,
    thresholds: Thresholds,
    patience: Duration,
) -> Readings {
    let mut facts = BlockingProbe::new(facts, |probe| Arc::new(probe.facts()));
    let mut containers = BlockingProbe::new(containers, |probe| probe.groups());
    let (facts, groups, report, manager) = tokio::join!(
        facts.ask(patience),
        containers.ask(patience),
        gpus.report(patience),
        systemd::look(BUS_PATIENCE)
    );
    let judged = judged_once(&report, thresholds);
    let containers = groups.map(|groups: Groups| {
        let now = std::time::Instant::now();
        Arc::new(History::default().seen(&groups, &judged.details, now))
    });
    let systemd = manager.map(Arc::new);
    Readings { facts, load: None, gpu: Some(Arc::new(judged)), containers, problems: None, systemd }
}

/// What a report means to who has seen none before.
pub fn judged_once(report: &GpuReport, thresholds: Thresholds) -> Judged {
    Judge::new(thresholds, Memory::default()).judge(report, None, verdict::now()).0
}

/// Waits until shortly before a heartbeat that was not served yet, or until the driver tells
/// something by itself or is to be judged by something else; false when nobody announces any more.
async fn wait_for_next(
    next_beat: &mut watch::Receiver<Option<std::time::Instant>>,
    reports: &mut watch::Receiver<Option<GpuReport>>,
    verdicts: &mut Verdicts,
    served: Option<std::time::Instant>,
    began: Instant,
) -> bool {
    let mut told = false;
    loop {
        let due =
            if told { began + CLOSEST } else { next_round(*next_beat.borrow_and_update(), served, began) };
        tokio::select! {
            () = tokio::time::sleep_until(due) => return true,
            Ok(()) = reports.changed(), if !told => told = true,
            () = verdicts.reloaded(), if !told => told = true,
            changed = next_beat.changed() => if changed.is_err() { return false },
        }
    }
}

/// When to ask again: shortly before the announced heartbeat, unless this round has served it already.
fn next_round(
    announced: Option<std::time::Instant>,
    served: Option<std::time::Instant>,
    began: Instant,
) -> Instant {
    let idle = began + IDLE;
    announced
        .filter(|&beat| Some(beat) != served)
        .and_then(|beat| beat.checked_sub(LEAD))
        .map_or(idle, |due| Instant::from_std(due).min(idle))
        .max(began + CLOSEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gatherer_that_concludes_nothing_for_three_long_rounds_is_lost() {
        let concluded = Instant::now();
        assert!(gathers(concluded, concluded + (IDLE + PATIENCE) * 3));
        assert!(!gathers(concluded, concluded + (IDLE + PATIENCE) * 3 + Duration::from_secs(1)));
        assert!(gathers(concluded + Duration::from_secs(1), concluded), "a round that has just ended");
    }

    #[test]
    fn numbers_are_asked_for_shortly_before_their_heartbeat_and_once() {
        let began = Instant::now();
        let after = |millis| began + Duration::from_millis(millis);
        let beat = |millis| Some(after(millis).into_std());
        for (announced, served, due) in [
            // The next heartbeat of an ordinary pace.
            (beat(20_000), None, after(18_500)),
            // The one that this very round was for.
            (beat(1500), beat(1500), began + IDLE),
            // No session.
            (None, None, began + IDLE),
            // A pace slower than readers of the status socket like.
            (beat(3_600_000), None, began + IDLE),
            // Heartbeats faster than anybody measures.
            (beat(50), None, began + CLOSEST),
        ] {
            assert_eq!(next_round(announced, served, began), due, "{announced:?} {served:?}");
        }
    }
}
