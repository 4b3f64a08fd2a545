//! Attacks on a running controller, one after the other, while good workers and a good user go on.
//! Measured is what the good ones notice and what the controller spends; what an attack itself
//! achieves is counted beside it.

mod abuse;
mod attack;
mod flood;
mod good;
pub(crate) mod report;
mod target;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time::sleep,
};

use crate::{
    controller::{Controller, Dialect, Enrolled, Mode, Tally},
    usage,
};
use attack::Attack;
use good::Good;
use report::{EdgeReport, Phase};
use target::{Enemy, Target};

/// How many good workers, and how long each attack lasts.
#[derive(Debug, Clone)]
pub struct EdgeScenario {
    /// Good workers.
    pub workers: usize,
    /// Of each attack.
    pub phase: Duration,
    /// How long the controller has to let go of whoever only holds a connection; none, and that is
    /// not looked at.
    pub release: Option<Duration>,
    /// No good heartbeat may be later than this.
    pub latest_beat: Duration,
    /// 99 of 100 good requests are answered within this time.
    pub p99: Duration,
    /// Only the attacks whose names contain this.
    pub only: String,
}

/// A worker that falls silent counts as offline after this time.
const LEASE: Duration = Duration::from_secs(30);

/// Organisation of the attackers.
const ENEMY: &str = "enemy";

/// Between two looks at memory and descriptors.
const LOOK: Duration = Duration::from_millis(100);

/// Descriptors that come and go by themselves.
const TOLERANCE: usize = 20;

/// Nodes of the attackers that fall silent together, beside a good one (A9), and how much later than after
/// its lease that one may count as offline.
const SILENT_NODES: usize = 20;
const LATEST_OFFLINE: Duration = Duration::from_secs(5);

/// Nodes of the attackers: some say much of themselves, and some do other harm.
const LOUD_NODES: usize = 100;
const OTHER_NODES: usize = 8;

/// Runs all attacks against `controller`, the program.
pub async fn attack_and_watch(scenario: &EdgeScenario, controller: PathBuf) -> Result<EdgeReport> {
    usage::raise_the_limit_of_open_files()?;
    let mode = Mode { heartbeat_timeout: LEASE, dialect: Dialect::Own, tls: false };
    let controller = Controller::start(controller, mode).await?;
    eprintln!("edge: registering {} nodes", scenario.workers + 2 + LOUD_NODES + OTHER_NODES);
    let mut nodes = controller.enrol(scenario.workers + 2).await?;
    let (comer, silent) = (nodes.pop().context("no node")?, nodes.pop().context("no node")?);
    let (enemy, victim) = enemy(&controller).await?;
    let organisations_node = nodes.first().context("no node")?.node_id.to_string();
    let good = Good::start(&controller, nodes, vec![comer, victim], organisations_node).await?;
    let mut tally = Tally::default();

    // On threads of their own, so that what is measured does not wait for them.
    let attackers = Attackers::start()?;
    let target = Arc::new(Target::new(controller.address(), enemy));
    let quiet = watch(&controller, &good, &target, "nothing", scenario.phase).await?;
    let baseline = controller.descriptors()?;
    let mut phases = vec![quiet];
    for attack in Attack::ALL.into_iter().filter(|attack| attack.name().contains(&scenario.only)) {
        eprintln!("edge: {}", attack.name());
        target.move_to_address_of(attack);
        let attacking = attackers.spawn(attack.run(target.clone(), scenario.phase));
        let phase = watch(&controller, &good, &target, attack.name(), scenario.phase).await?;
        attacking.inspect(JoinHandle::abort);
        phases.push(phase);
    }
    let held = target.held();
    let (mut released, mut late) = (None, None);
    if let Some(bound) = scenario.release {
        eprintln!("edge: waiting until {held} idle connections are let go, and for a silent node (A9)");
        late = Some(silence(&controller, &target, &silent).await?);
        released = Some(watch_release(&controller, baseline, bound).await?);
    }
    controller.count_events(&mut tally).await?;
    Ok(EdgeReport {
        scenario: scenario.clone(),
        held,
        released,
        late,
        // One fell silent, and so did the attackers' own, of whom the user that asks hears nothing.
        disconnected: tally.count("node.disconnected").saturating_sub(u64::from(late.is_some())),
        phases,
    })
}

async fn enemy(controller: &Controller) -> Result<(Enemy, Enrolled)> {
    let mut nodes = controller.enrol_for(ENEMY, LOUD_NODES + OTHER_NODES).await?;
    let others = nodes.split_off(LOUD_NODES);
    let enemy = Enemy { user_token: controller.user_token(ENEMY).await?, loud: nodes, others };
    let victim = enemy.others.first().context("no node")?;
    let token = enemy.another_token(controller.address(), &victim.node_id).await?;
    let victim = Enrolled { node_id: victim.node_id.clone(), token };
    Ok((enemy, victim))
}

/// Looks for the time of an attack.
async fn watch(
    controller: &Controller,
    good: &Good,
    target: &Target,
    name: &'static str,
    time: Duration,
) -> Result<Phase> {
    let (began, log) = (Instant::now(), controller.log_bytes()?);
    let processor = controller.processor_time()?;
    good.take();
    target.take();
    let (mut memory, mut descriptors) = (0, 0);
    while began.elapsed() < time {
        memory = controller.resident_bytes()?.max(memory);
        descriptors = controller.descriptors()?.max(descriptors);
        sleep(LOOK).await;
    }
    let processor = controller.processor_time()?.above(processor).total();
    let log_bytes = controller.log_bytes()?.saturating_sub(log);
    let processor = processor.as_secs_f64() / began.elapsed().as_secs_f64();
    Ok(Phase { name, good: good.take(), did: target.take(), memory, descriptors, processor, log_bytes })
}

/// Lets nodes of the attackers and a good one fall silent at once: how much later than after its lease the
/// good one counts as offline.
async fn silence(controller: &Controller, target: &Target, good: &Enrolled) -> Result<Duration> {
    let mut sockets = Vec::new();
    for node in target.enemy.loud.iter().take(SILENT_NODES).chain([good]) {
        sockets.push(abuse::register(target, node).await?);
    }
    let silent_since = Instant::now();
    loop {
        let node = controller.ask(&format!("/nodes/{}", good.node_id), None).await?;
        if node["status"] == "offline" {
            return Ok(silent_since.elapsed().saturating_sub(LEASE));
        }
        ensure!(silent_since.elapsed() < LEASE * 3, "a silent node stays {}", node["status"]);
        sleep(LOOK).await;
    }
}

/// How long it takes until the controller has about as many descriptors open as before, and how
/// many more it has then.
async fn watch_release(
    controller: &Controller,
    baseline: usize,
    bound: Duration,
) -> Result<(Duration, usize)> {
    let began = Instant::now();
    loop {
        let more = controller.descriptors()?.saturating_sub(baseline + TOLERANCE);
        if more == 0 || began.elapsed() > bound {
            return Ok((began.elapsed(), more));
        }
        sleep(LOOK).await;
    }
}

/// The attackers' threads.
struct Attackers(Option<Runtime>);

impl Attackers {
    fn start() -> Result<Self> {
        Ok(Self(Some(Builder::new_multi_thread().worker_threads(2).enable_all().build()?)))
    }

    fn spawn(&self, attack: impl Future<Output = ()> + Send + 'static) -> Option<JoinHandle<()>> {
        self.0.as_ref().map(|runtime| runtime.spawn(attack))
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
