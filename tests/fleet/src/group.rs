//! Several controllers on one PostgreSQL server: the fleet is spread over them, one is killed, and nobody may
//! notice. What is measured is what it costs all of them and the server.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

use aio_tests::database::Database;
use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use crate::{
    controller::{Controller, Dialect, Mode, Tally},
    fleet::Fleet,
    scenario::Scenario,
    usage::{self, ProcessorTime},
    worker::Talk,
};

/// Memory and processor time settle for so long before they are read.
const SETTLE: Duration = Duration::from_secs(2);

/// Delivery of the first events of a whole fleet takes its time, and is measured elsewhere.
const DELIVERY: Duration = Duration::from_secs(900);

/// After this a controller that was killed counts as dead, and another may have to lead first.
const DEATH: Duration = Duration::from_secs(25);

/// What names all controllers. Nobody asks there.
const PUBLIC_URL: &str = "http://127.0.0.1:9";

/// What was measured.
#[derive(Debug, Clone)]
pub struct GroupReport {
    /// How many controllers.
    pub controllers: usize,
    /// How many workers.
    pub workers: u64,
    /// How many each controller had before the kill.
    pub spread: Vec<u64>,
    /// Resident memory per worker above the empty servers.
    pub bytes_per_worker: u64,
    /// From the first dial to the last welcome.
    pub connected_in: Duration,
    /// While all are connected and silent.
    pub silence: Cost,
    /// While heartbeats come, each with its ping.
    pub talk: Cost,
    /// Heartbeats in that time.
    pub beats: u64,
    /// From the first dial to the last welcome.
    pub coming: Cost,
    /// From the kill to the last welcome.
    pub back_in: Duration,
    /// Workers that were online a whole lease after the death was known.
    pub online_after_lease: u64,
    /// `node.disconnected` events of the whole run: each is a false one.
    pub disconnected: u64,
    /// `node.registered` and `node.connected` events: two per worker.
    pub told: u64,
    /// What went wrong on the way, and how often.
    pub setbacks: BTreeMap<String, u64>,
}

/// What a phase cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// How long it took.
    pub time: Duration,
    /// Processor time of all controllers.
    pub controllers: ProcessorTime,
    /// Processor time of the database's server.
    pub database: Duration,
    /// Transactions that were committed.
    pub commits: u64,
}

impl Cost {
    fn database_share(&self) -> f64 {
        self.database.as_secs_f64() / self.time.as_secs_f64() * 100.0
    }

    fn commits_each_second(&self) -> f64 {
        self.commits as f64 / self.time.as_secs_f64()
    }
}

impl GroupReport {
    /// Processor time of all controllers for a heartbeat, beyond what a fleet that says nothing costs.
    pub fn beat_cost(&self) -> Duration {
        let idle = self.silence.controllers.total().as_secs_f64() / self.silence.time.as_secs_f64();
        let idle = Duration::from_secs_f64(idle * self.talk.time.as_secs_f64());
        let beats = u32::try_from(self.beats).unwrap_or(u32::MAX).max(1);
        self.talk.controllers.total().saturating_sub(idle) / beats
    }
}

/// What is added up.
struct Meter<'a> {
    controllers: &'a [Controller],
    database: &'a Database,
    began: Instant,
    processor: ProcessorTime,
    server: Duration,
    commits: u64,
}

impl<'a> Meter<'a> {
    fn start(controllers: &'a [Controller], database: &'a Database) -> Result<Self> {
        let processor = of_all(controllers)?;
        let (server, commits) = (database.processor_time()?, database.commits()?);
        Ok(Self { controllers, database, began: Instant::now(), processor, server, commits })
    }

    fn stop(self) -> Result<Cost> {
        Ok(Cost {
            time: self.began.elapsed(),
            controllers: of_all(self.controllers)?.above(self.processor),
            database: self.database.processor_time()?.saturating_sub(self.server),
            commits: self.database.commits()?.saturating_sub(self.commits),
        })
    }
}

fn of_all(controllers: &[Controller]) -> Result<ProcessorTime> {
    let mut all = ProcessorTime { user: Duration::ZERO, system: Duration::ZERO };
    for controller in controllers {
        let one = controller.processor_time()?;
        all = ProcessorTime { user: all.user + one.user, system: all.system + one.system };
    }
    Ok(all)
}

fn resident_bytes(controllers: &[Controller]) -> Result<u64> {
    controllers.iter().map(Controller::resident_bytes).sum()
}

/// Runs the scenario against so many controllers of this program.
pub async fn run_group(scenario: &Scenario, controllers: usize, program: PathBuf) -> Result<GroupReport> {
    usage::raise_the_limit_of_open_files()?;
    ensure!(
        !scenario.tls && scenario.dialect == Dialect::Own,
        "several controllers are measured in the clear, with workers that speak aio.node.v1"
    );
    let size = u64::try_from(scenario.workers)?;
    let mode = Mode { heartbeat_timeout: scenario.lease, dialect: scenario.dialect, tls: false };
    let database = Database::start()?;
    let mut group = Vec::new();
    for _ in 0..controllers {
        let environment = Database::environment(&database.url(), PUBLIC_URL);
        group.push(Controller::start_in(program.clone(), mode, environment).await?);
    }
    sleep(SETTLE).await;
    let empty_bytes = resident_bytes(&group)?;

    eprintln!("fleet: registering {size} nodes");
    let survivor = group.last().context("no controller")?;
    let nodes = survivor.enrol(scenario.workers).await?;
    let mut tally = Tally::default();
    survivor.told(&mut tally, "node.registered", size, DELIVERY).await?;

    eprintln!("fleet: connecting over {:?}", scenario.ramp);
    let meter = Meter::start(&group, &database)?;
    let fleet = Fleet::spread(&group, nodes, scenario.gpus, scenario.ramp).await?;
    fleet.all_online(scenario.ramp + Duration::from_secs(120)).await?;
    let coming = meter.stop()?;
    survivor.told(&mut tally, "node.connected", size, DELIVERY).await?;
    let spread = spread(&database)?;

    eprintln!("fleet: measuring two phases of {:?}", scenario.phase);
    let mut phases = Vec::new();
    for talk in [Talk::Nothing, Talk::Heartbeats { every: scenario.pace, pings: true }] {
        fleet.talk(talk);
        sleep(SETTLE).await;
        let (meter, beats) = (Meter::start(&group, &database)?, fleet.beats());
        sleep(scenario.phase).await;
        phases.push((meter.stop()?, fleet.beats() - beats));
    }
    let connected_bytes = resident_bytes(&group)?;
    fleet.talk(Talk::Everything);
    ensure!(fleet.online() == size, "workers were lost while nothing was wrong: {:?}", fleet.setbacks());

    eprintln!("fleet: killing the controller that leads");
    let leading = database.ask("SELECT address FROM controllers WHERE leads = 1")?;
    let led = group.iter().position(|it| it.address().to_string() == leading).context("nobody leads")?;
    let killed = Instant::now();
    group.get_mut(led).context("nobody leads")?.kill().await?;
    fleet.some_offline(Duration::from_secs(30)).await?;
    fleet.all_online(scenario.back).await?;
    let back_in = killed.elapsed();

    eprintln!("fleet: waiting for its death and a whole lease ({:?})", scenario.lease);
    sleep((DEATH + scenario.lease + scenario.lease / 10).saturating_sub(killed.elapsed())).await;
    group.remove(led);
    let survivor = group.last().context("no controller is left")?;
    survivor.count_events(&mut tally).await?;
    let [(silence, _), (talk, beats)] = phases[..] else { anyhow::bail!("two phases") };
    Ok(GroupReport {
        controllers,
        workers: size,
        spread,
        bytes_per_worker: connected_bytes.saturating_sub(empty_bytes) / size.max(1),
        connected_in: coming.time,
        silence,
        talk,
        beats,
        coming,
        back_in,
        online_after_lease: fleet.online(),
        disconnected: tally.count("node.disconnected"),
        told: tally.count("node.registered") + tally.count("node.connected"),
        setbacks: fleet.setbacks(),
    })
}

/// How many workers each controller has.
fn spread(database: &Database) -> Result<Vec<u64>> {
    let counts = "SELECT COUNT(*) FROM nodes WHERE websocket_connected = 1 GROUP BY held_by ORDER BY held_by";
    database.ask(counts)?.lines().map(|line| Ok(line.parse()?)).collect()
}

impl fmt::Display for GroupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        let database = |cost: &Cost| {
            let (share, commits) = (cost.database_share(), cost.commits_each_second());
            format!("{share:.1} % of one processor, {commits:.1} commits a second")
        };
        let each = |cost: &Cost| {
            let workers = self.workers.max(1) as f64;
            let millis = cost.database.as_secs_f64() * 1000.0 / workers;
            format!("{:.1}, {millis:.2} ms of the database's processor", cost.commits as f64 / workers)
        };
        let rows = [
            ("controllers, workers of each", format!("{}, {:?}", self.controllers, self.spread), ""),
            (
                "memory per worker",
                format!("{:.2} KiB", self.bytes_per_worker as f64 / 1024.0),
                "≤ 8 KiB (aim 6)",
            ),
            (
                "processor per heartbeat and ping",
                format!("{:.1} µs", self.beat_cost().as_secs_f64() * 1e6),
                "",
            ),
            ("  heartbeats measured", self.beats.to_string(), ""),
            ("database while all are silent", database(&self.silence), ""),
            ("database while they beat", database(&self.talk), ""),
            ("all connected in", secs(self.connected_in), ""),
            ("  commits for each", each(&self.coming), ""),
            ("all back after SIGKILL of the leader in", secs(self.back_in), "≤ 15 s"),
            ("online a lease after its death", self.online_after_lease.to_string(), "all"),
            ("false offlines", self.disconnected.to_string(), "0"),
            ("events lost", (self.workers * 2).saturating_sub(self.told).to_string(), "0"),
        ];
        writeln!(f, "| what | measured | demanded |\n|---|---|---|")?;
        for (what, measured, demanded) in rows {
            writeln!(f, "| {what} | {measured} | {demanded} |")?;
        }
        for (what, count) in &self.setbacks {
            writeln!(f, "{count:>7} × {what}")?;
        }
        Ok(())
    }
}
