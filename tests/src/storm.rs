//! A storm of events: a fleet that changes all the time, a NOTI that fails in every way, and a
//! controller that is killed at random moments and started again on the same data, or several that
//! serve one PostgreSQL database together and suffer more than that. Afterwards the audit trail is
//! compared with what NOTI was told: nothing lost, nothing invented, nothing out of order. Without
//! faults and kills it measures how long an event takes.

mod fleet;
mod ground;
mod http;
mod judgement;
mod noti;
mod report;
mod socket;

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{artifacts::Artifacts, controller::Settings, wait::wait_for};
use fleet::Fleet;
use ground::{Ground, Mishap};
use judgement::Ledger;
use noti::Noti;
pub use report::Report;

/// How large a storm is, and of what kind.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many of them connect and leave over the WebSocket instead of being installed over HTTP.
    pub workers: usize,
    /// How many changes of status the fleet makes.
    pub transitions: usize,
    /// How often the controller is killed, or one of several.
    pub kills: usize,
    /// Several controllers, and what else happens to them; one on a file of SQLite's when unset.
    pub group: Option<Group>,
    /// Whether NOTI fails.
    pub faults: bool,
    /// Changes per second; as many as there can be when unset.
    pub rate: Option<f64>,
    /// Where chance begins.
    pub seed: u64,
    /// How long the last events may take.
    pub patience: Duration,
}

/// Controllers that serve one PostgreSQL database together, and what happens to them.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// How many there are.
    pub controllers: usize,
    /// How often one stands still until the others have taken it for dead.
    pub stops: usize,
    /// How often one is cut off from the database and from its workers, until the same.
    pub cuts: usize,
    /// How often the server of the database crashes.
    pub crashes: usize,
}

/// Whoever kills at random moments should not let the moments be always the same since a start.
const LONGEST_AIM: Duration = Duration::from_millis(300);

/// A breaker that pauses for seconds at every burst of failures would make a long test of a short
/// one. What it decides is tested beside it.
const BREAKER_PAUSE: &str = "10ms";

/// Runs a storm. An error says what was lost, or out of order, or could not be.
pub fn run(artifacts: &Artifacts, plan: &Plan) -> Result<Report> {
    let mut chance = fastrand::Rng::with_seed(plan.seed);
    let noti = Noti::start(chance.fork())?;
    let mut settings = Settings::default()
        .env("NOTI_SERVICE_URL", &noti.url())
        .env("UPGRADES_PER_SECOND", "10000")
        .env("RUST_LOG", "warn");
    if plan.faults {
        settings = settings.env("NOTI_BREAKER_PAUSE", BREAKER_PAUSE);
    }
    let mut ground = Ground::prepare(artifacts, settings, plan.group)?;
    let fleet = Fleet::new(ground.enrol(plan.nodes)?, plan, ground.addresses());
    noti.wait_until_told(plan.nodes, plan.patience)?;

    let (began, before) = (Instant::now(), ground.processor_time()?);
    let mishaps = mishaps(plan, &mut chance);
    let mut restarts = Vec::new();
    let moods = chance.fork();
    let (database, calm) = (ground.database(), AtomicBool::new(false));
    let changed = thread::scope(|scope| {
        let changing = fleet.spawn(scope);
        if plan.faults {
            scope.spawn(|| noti.vary(moods, &calm));
        }
        let outcome = (|| -> Result<Duration> {
            for (mark, mishap) in &mishaps {
                fleet.wait_for_progress(*mark)?;
                // A moment, and not the one at which a change was just answered.
                thread::sleep(LONGEST_AIM.mul_f64(chance.f64()));
                let blow = ground.strike(*mishap, &mut chance)?;
                let ledger = Ledger::read(&database)?;
                ledger.check_after_a_kill(&ledger.known_of(noti.kept()))?;
                restarts.push(ground.mend(blow)?);
            }
            fleet.wait_for_progress(plan.transitions)?;
            let changed = began.elapsed();
            fleet.finish();
            // What was still on its way is an event, too.
            for thread in changing {
                ensure!(thread.join().is_ok(), "the fleet broke down");
            }
            let look = || Ledger::outbox_size(&database);
            wait_for("an empty outbox", plan.patience, look, |left| *left == 0)?;
            Ok(changed)
        })();
        fleet.finish();
        calm.store(true, Ordering::Relaxed);
        outcome
    });
    let changed = changed.with_context(|| ground.log_tails())?;
    let delivered = began.elapsed();
    fleet.check_owners()?;
    ground.check_owners()?;
    let used = ground.processor_time()?.saturating_sub(before);
    // What counts is on the disk.
    ground.kill_all()?;

    let ledger = Ledger::read(&database)?;
    let kept = noti.kept();
    ledger.check_all_delivered(&kept)?;
    let ids: HashSet<_> = kept.nodes.values().flatten().map(|event| &event.id).collect();
    ensure!(ids.len() == kept.events, "an event was told of two nodes");
    Ok(Report {
        seed: plan.seed,
        transitions: ledger.transitions(),
        kept: kept.events,
        duplicates: kept.duplicates,
        answers: kept.answers.clone(),
        controllers: plan.group.map_or(1, |group| group.controllers),
        doubles: fleet.doubles(),
        restarts,
        changed,
        delivered,
        processor_time: mishaps.is_empty().then_some(used),
        latencies: fleet.latencies(&kept),
    })
}

/// What happens after how many changes.
fn mishaps(plan: &Plan, chance: &mut fastrand::Rng) -> Vec<(usize, Mishap)> {
    let group = plan.group.unwrap_or(Group { controllers: 1, stops: 0, cuts: 0, crashes: 0 });
    let kinds = [
        (Mishap::Kill, plan.kills),
        (Mishap::Stop, group.stops),
        (Mishap::Cut, group.cuts),
        (Mishap::Crash, group.crashes),
    ];
    let each = kinds.into_iter().flat_map(|(mishap, times)| std::iter::repeat_n(mishap, times));
    let mut mishaps: Vec<_> = each.map(|mishap| (chance.usize(0..plan.transitions), mishap)).collect();
    mishaps.sort_unstable_by_key(|(mark, _)| *mark);
    mishaps
}
