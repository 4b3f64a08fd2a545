//! A container's place: its starts, and when something went wrong there.

use std::time::{Duration, Instant};

use aio_host::cgroups::Group;
use aio_protocol::container::{Container, ContainerProblem, ContainerState};

use super::{REMEMBERED, described};

/// As many restarts within this time are too many.
const TOO_MANY: usize = 3;
const TOO_MANY_WITHIN: Duration = Duration::from_secs(15 * 60);

/// It is over when it was not started again for this long.
const QUIET: Duration = Duration::from_secs(10 * 60);

/// How long a kill for memory is told of.
const KILL_TOLD_FOR: Duration = Duration::from_secs(60 * 60);

/// Restarts that are remembered one by one.
const MAX_RECENT: usize = 16;

/// What is known of a place.
#[derive(Debug)]
pub(super) struct Place {
    /// Those that run: more than one only where a pod's containers have no names.
    starts: Vec<Start>,
    /// Starts that have ended and that none has followed yet.
    ended: usize,
    restarts: u32,
    /// The kubelet's count of them.
    counted: Option<u32>,
    /// When it was started again lately, the oldest first.
    recent: Vec<Instant>,
    restarting: bool,
    /// Kills of starts that have ended.
    kills: u64,
    killed_at: Option<Instant>,
    /// When one of its starts began or ended.
    changed_at: Instant,
    seen_at: Instant,
    /// How it was seen last.
    last: Container,
}

/// A container from its start to its end.
#[derive(Debug, Clone, Copy)]
struct Start {
    number: u64,
    kills: u64,
    cpu_micros: Option<u64>,
    /// When that was measured, and the measurement before.
    measured: Option<(Instant, u64)>,
}

impl Start {
    fn of(group: &Group) -> Self {
        let kills = group.oom_kills.unwrap_or_default();
        Self { number: group.number, kills, cpu_micros: group.cpu_micros, measured: None }
    }
}

impl Place {
    /// A place that nothing is known of but what is there now.
    pub(super) fn first(groups: &[&Group], now: Instant) -> Self {
        let counted = counted(groups);
        Self {
            starts: groups.iter().map(|group| Start::of(group)).collect(),
            ended: 0,
            restarts: counted.unwrap_or_default(),
            counted,
            recent: Vec::new(),
            restarting: false,
            kills: 0,
            killed_at: None,
            changed_at: now,
            seen_at: now,
            last: groups.first().map(|group| described(group)).unwrap_or_default(),
        }
    }

    /// It looks so now; says how many of its processes were killed since it was seen before.
    pub(super) fn seen(&mut self, groups: &[&Group], now: Instant) -> u64 {
        self.seen_at = now;
        self.last = groups.first().map(|group| described(group)).unwrap_or_default();
        let is_there = |start: &Start| groups.iter().any(|group| group.number == start.number);
        let gone: Vec<_> = self.starts.iter().filter(|start| !is_there(start)).copied().collect();
        self.starts.retain(is_there);
        self.end(&gone);
        let (mut killed, mut fresh) = (0, 0);
        for group in groups {
            let kills = group.oom_kills.unwrap_or_default();
            match self.starts.iter_mut().find(|start| start.number == group.number) {
                Some(start) => {
                    killed += kills.saturating_sub(start.kills);
                    (start.kills, start.cpu_micros) = (kills, group.cpu_micros);
                }
                None => {
                    (killed, fresh) = (killed + kills, fresh + 1);
                    self.starts.push(Start::of(group));
                }
            }
        }
        if fresh > 0 || !gone.is_empty() {
            self.changed_at = now;
        }
        self.restart(fresh, counted(groups), now);
        if killed > 0 {
            self.killed_at = Some(now);
        }
        killed
    }

    /// Nothing of it runs any more.
    pub(super) fn stopped(&mut self) {
        let gone = std::mem::take(&mut self.starts);
        self.end(&gone);
    }

    /// Kills that nobody else accounts for.
    pub(super) fn killed(&mut self, kills: u64, now: Instant) {
        self.kills += kills;
        self.killed_at = Some(now);
    }

    /// A container of this place, with what is known beyond its control group.
    pub(super) fn told(&self, container: Container, group: &Group, now: Instant) -> Container {
        let start = self.starts.iter().find(|start| start.number == group.number);
        let oom_kills = match (container.oom_kills, self.kills) {
            (None, 0) => None,
            (own, before) => Some(own.unwrap_or_default() + before),
        };
        Container {
            cpu_usage: start.and_then(|start| start.usage(now)),
            oom_kills,
            restarts: Some(self.restarts),
            problems: self.problems(now),
            ..container
        }
    }

    /// The container that ran here and does not now, if something is wrong with it.
    pub(super) fn missed(&self, now: Instant) -> Option<Container> {
        let problems = self.problems(now);
        (self.starts.is_empty() && !problems.is_empty()).then(|| Container {
            state: ContainerState::Exited,
            cpu_seconds: None,
            memory_used: None,
            oom_kills: Some(self.kills),
            restarts: Some(self.restarts),
            problems,
            ..self.last.clone()
        })
    }

    /// Remembers what was measured, for the next time.
    pub(super) fn measured(&mut self, now: Instant) {
        for start in &mut self.starts {
            start.measured = start.cpu_micros.map(|micros| (now, micros));
        }
    }

    pub(super) fn is_remembered(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen_at) < REMEMBERED
    }

    pub(super) fn pod(&self) -> Option<&String> {
        self.last.pod.as_ref().map(|pod| &pod.uid)
    }

    pub(super) fn changed_at(&self) -> Instant {
        self.changed_at
    }

    fn end(&mut self, gone: &[Start]) {
        self.ended += gone.len();
        self.kills += gone.iter().map(|start| start.kills).sum::<u64>();
    }

    /// Counts the starts that follow others: by the kubelet where it counts, else by those that have ended.
    fn restart(&mut self, fresh: usize, counted: Option<u32>, now: Instant) {
        let again = match (self.counted, counted) {
            (Some(before), Some(counted)) => usize::try_from(counted.saturating_sub(before)).unwrap_or(0),
            _ => fresh.min(self.ended),
        };
        self.ended -= fresh.min(self.ended);
        self.restarts = match counted {
            Some(counted) => counted,
            None => self.restarts.saturating_add(again.try_into().unwrap_or(u32::MAX)),
        };
        self.counted = counted.or(self.counted);
        self.recent.extend(std::iter::repeat_n(now, again.min(MAX_RECENT)));
        self.recent.retain(|at| now.saturating_duration_since(*at) < TOO_MANY_WITHIN);
        self.recent.drain(..self.recent.len().saturating_sub(MAX_RECENT));
        self.restarting |= self.recent.len() >= TOO_MANY;
        self.restarting &= !self.is_quiet(now);
    }

    fn is_quiet(&self, now: Instant) -> bool {
        self.recent.last().is_none_or(|last| now.saturating_duration_since(*last) >= QUIET)
    }

    fn problems(&self, now: Instant) -> Vec<ContainerProblem> {
        let restarting = self.restarting && !self.is_quiet(now);
        let killed = self.killed_at.is_some_and(|at| now.saturating_duration_since(at) < KILL_TOLD_FOR);
        let problems = [(restarting, ContainerProblem::Restarting), (killed, ContainerProblem::OomKilled)];
        problems.into_iter().filter_map(|(there, problem)| there.then_some(problem)).collect()
    }
}

impl Start {
    /// Percent of one processor since the measurement before, to a tenth.
    fn usage(&self, now: Instant) -> Option<f32> {
        let (at, before) = self.measured?;
        let passed = now.saturating_duration_since(at).as_micros();
        let used = self.cpu_micros?.saturating_sub(before);
        let tenths = (u128::from(used) * 1000).checked_div(passed)?;
        Some(u32::try_from(tenths).ok()? as f32 / 10.0)
    }
}

/// How often the kubelet has started it again.
fn counted(groups: &[&Group]) -> Option<u32> {
    groups.iter().filter_map(|group| group.known_as.as_ref().map(|(_, restarts)| *restarts)).max()
}
