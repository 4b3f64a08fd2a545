//! A fleet is brought to another version while its controller is killed again and again. What must hold:
//! nobody is lost, nobody switches twice, and whoever is pinned or packaged is left alone. What is measured:
//! how many nodes a second a rollout moves.

pub(crate) mod crew;
mod worker;

use std::{
    fmt,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::controller::{Controller, Dialect, Enrolled, Mode, Tally};
use worker::{Fate, Kind, Worker};

/// Between two looks at the rollout.
const LOOK: Duration = Duration::from_millis(250);

/// How large a rollout is, and how bad its days are.
#[derive(Debug, Clone)]
pub struct RolloutScenario {
    /// Workers that are there from the beginning.
    pub nodes: usize,
    /// Workers that come when the rollout is over.
    pub late: usize,
    /// Of those that are there: pinned ones, and as many of packages.
    pub pinned: usize,
    /// On how many of a thousand the release is faulty.
    pub faulty_per_mille: u32,
    /// How often the controller is killed meanwhile.
    pub kills: usize,
    /// Canaries, as the API takes them.
    pub canaries: String,
    /// How many may switch at a time, as the API takes it.
    pub in_flight: String,
    /// All of it takes no longer.
    pub bound: Duration,
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct RolloutReport {
    /// The rollout's last state.
    pub state: String,
    /// Why it halted, if it did.
    pub criterion: Option<String>,
    /// From its start to that state.
    pub took: Duration,
    /// Nodes that switched, and those of them on which the release is faulty.
    pub switched: usize,
    /// See there.
    pub failed: usize,
    /// Nodes that run the new version.
    pub arrived: usize,
    /// Nodes that came after its end and run the new version.
    pub late_arrived: usize,
    /// Nodes that switched twice or had two offers.
    pub twice: usize,
    /// Offers to nodes that are pinned or packaged.
    pub unwanted: usize,
    /// How often the controller was killed.
    pub kills: usize,
    /// `node.updated` and `node.disconnected` that NOTI knows of.
    pub updated_events: u64,
    /// See there.
    pub disconnected_events: u64,
}

impl fmt::Display for RolloutReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.switched as f64 / self.took.as_secs_f64().max(0.001);
        let criterion = self.criterion.as_deref().map(|it| format!(" ({it})")).unwrap_or_default();
        writeln!(
            f,
            "the rollout is {}{criterion} after {:.1} s and {} kills",
            self.state,
            self.took.as_secs_f64(),
            self.kills
        )?;
        writeln!(f, "{} nodes switched, {rate:.1} a second; faulty on {}", self.switched, self.failed)?;
        writeln!(f, "{} run the new version, and {} that came later", self.arrived, self.late_arrived)?;
        writeln!(
            f,
            "{} did something twice, {} had an offer that they should not have",
            self.twice, self.unwanted
        )?;
        writeln!(
            f,
            "events: {} node.updated, {} node.disconnected",
            self.updated_events, self.disconnected_events
        )
    }
}

/// Rolls a version out, and says what became of it.
pub async fn roll_out(scenario: &RolloutScenario, program: PathBuf) -> Result<RolloutReport> {
    let mode = Mode { heartbeat_timeout: Duration::from_secs(60), dialect: Dialect::Own, tls: false };
    let mut controller = Controller::start(program, mode).await?;
    let release = |byte: &str| json!({ "manifestSha256": format!("sha256:{}", byte.repeat(64)) });
    let index = json!({"serial": 1, "issuedAt": "2025-12-11T12:00:00.000Z", "expiresAt": "2099-01-01T00:00:00.000Z",
        "releases": {"v1.0.0": release("a"), "v1.1.0": release("b")}});
    controller.write_index(&index.to_string())?;
    let mut enrolled = controller.enrol(scenario.nodes + scenario.late).await?;
    let late = enrolled.split_off(scenario.nodes);
    let (mut tasks, mut fates) = (JoinSet::new(), Vec::new());
    for (number, node) in enrolled.into_iter().enumerate() {
        let (kind, fate) = start(&mut tasks, &controller, node, number, scenario.kind(number))?;
        fate.spoilt.store(scenario.is_faulty_on(number), Ordering::SeqCst);
        fates.push((kind, fate));
    }
    let mut events = Tally::default();
    controller.told(&mut events, "node.connected", scenario.nodes as u64, scenario.bound).await?;

    let new = json!({"version": "v1.1.0", "soakSeconds": 0, "wavePauseSeconds": 0, "canaries": scenario.canaries,
        "inFlight": scenario.in_flight});
    let created = controller.ask("/rollouts", Some(new)).await?;
    let path = format!("/rollouts/{}", created["id"].as_str().context("a rollout without an id")?);
    let began = Instant::now();
    controller.ask(&format!("{path}/start"), Some(json!({}))).await?;
    let mut kills = 0;
    let rollout = loop {
        let rollout = controller.ask(&path, None).await?;
        if rollout["state"] == "completed" || rollout["state"] == "halted" {
            break rollout;
        }
        ensure!(began.elapsed() < scenario.bound, "it does not end: {rollout}");
        // Each time that another part of the fleet has switched.
        if kills < scenario.kills && switched(&fates) * (scenario.kills + 1) > scenario.nodes * kills {
            controller.kill().await?;
            controller.start_again().await?;
            kills += 1;
        }
        sleep(LOOK).await;
    };
    let took = began.elapsed();
    let late = late.into_iter().enumerate();
    let late: Vec<_> = late
        .map(|(number, node)| start(&mut tasks, &controller, node, number, Kind::Managed))
        .collect::<Result<_>>()?;
    let began = Instant::now();
    while rollout["state"] == "completed" && arrived(&late) < late.len() {
        ensure!(began.elapsed() < scenario.bound, "{} of {} late nodes arrived", arrived(&late), late.len());
        sleep(LOOK).await;
    }
    let expected = (arrived(&fates) + arrived(&late)) as u64;
    controller.told(&mut events, "node.updated", expected, scenario.bound).await?;
    Ok(report(&rollout, &fates, &late, (took, kills), &events))
}

impl RolloutScenario {
    fn kind(&self, number: usize) -> Kind {
        if number < self.pinned {
            Kind::Pinned
        } else if number < self.pinned * 2 {
            Kind::Packaged
        } else {
            Kind::Managed
        }
    }

    fn is_faulty_on(&self, number: usize) -> bool {
        // Spread over the fleet by a number that has nothing to do with its order.
        let scattered = (number as u32).wrapping_mul(2_654_435_761) >> 8;
        scattered % 1000 < self.faulty_per_mille
    }
}

fn start(
    tasks: &mut JoinSet<()>,
    controller: &Controller,
    node: Enrolled,
    number: usize,
    kind: Kind,
) -> Result<(Kind, Arc<Fate>)> {
    let fate = Arc::<Fate>::default();
    let last = u8::try_from(number % 200 + 2).unwrap_or(2);
    tasks.spawn(
        Worker {
            address: controller.address(),
            source: Ipv4Addr::new(127, 0, 1, last),
            endpoint: controller.gateway()?,
            node,
            kind,
            fate: fate.clone(),
        }
        .run(),
    );
    Ok((kind, fate))
}

fn switched(fates: &[(Kind, Arc<Fate>)]) -> usize {
    fates.iter().filter(|(_, fate)| fate.switches.load(Ordering::SeqCst) > 0).count()
}

fn arrived(fates: &[(Kind, Arc<Fate>)]) -> usize {
    fates.iter().filter(|(_, fate)| fate.arrived.load(Ordering::SeqCst)).count()
}

fn report(
    rollout: &Value,
    fates: &[(Kind, Arc<Fate>)],
    late: &[(Kind, Arc<Fate>)],
    (took, kills): (Duration, usize),
    events: &Tally,
) -> RolloutReport {
    let offers = |fate: &Fate| fate.offers.lock().unwrap_or_else(PoisonError::into_inner).len();
    let all = || fates.iter().chain(late);
    let twice = |fate: &Fate| fate.switches.load(Ordering::SeqCst) > 1 || offers(fate) > 1;
    let left_out = |kind: Kind| matches!(kind, Kind::Pinned | Kind::Packaged);
    let failed = |(_, fate): &&(Kind, Arc<Fate>)| {
        fate.spoilt.load(Ordering::SeqCst) && fate.switches.load(Ordering::SeqCst) > 0
    };
    RolloutReport {
        state: rollout["state"].as_str().unwrap_or_default().to_owned(),
        criterion: rollout["detail"]["criterion"].as_str().map(str::to_owned),
        took,
        switched: switched(fates),
        failed: fates.iter().filter(failed).count(),
        arrived: arrived(fates),
        late_arrived: arrived(late),
        twice: all().filter(|(_, fate)| twice(fate)).count(),
        unwanted: all().filter(|(kind, _)| left_out(*kind)).map(|(_, fate)| offers(fate)).sum(),
        kills,
        updated_events: events.count("node.updated"),
        disconnected_events: events.count("node.disconnected"),
    }
}
