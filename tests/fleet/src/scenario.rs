//! What is measured, in order: an empty server; a fleet that connects; silence; only heartbeats; a
//! SIGKILL and a start; and a whole lease beyond it, in which nobody may go offline.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use crate::{
    controller::{Controller, Dialect, Mode, Tally},
    fleet::Fleet,
    report::Report,
    usage::{self, ProcessorTime},
    worker::Talk,
};

/// Memory and processor time settle for so long before they are read.
const SETTLE: Duration = Duration::from_secs(2);

/// Delivery of the first events of a whole fleet takes its time, and is measured elsewhere.
const DELIVERY: Duration = Duration::from_secs(900);

/// How large, how fast, how long.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// How many workers.
    pub workers: usize,
    /// Over TLS, or in the clear.
    pub tls: bool,
    /// What they speak.
    pub dialect: Dialect,
    /// GPUs of each: a heartbeat of 8 is nearly 1 KiB.
    pub gpus: usize,
    /// How long a silent worker counts as online.
    pub lease: Duration,
    /// Between two heartbeats of a worker while they are measured.
    pub pace: Duration,
    /// The length of each phase that is measured.
    pub phase: Duration,
    /// The time over which the workers are started.
    pub ramp: Duration,
    /// All must be back within this time after the kill.
    pub back: Duration,
}

/// Runs the scenario against `controller`, the program.
pub async fn run(scenario: &Scenario, controller: PathBuf) -> Result<Report> {
    let files = usage::raise_the_limit_of_open_files()?;
    let sockets = u64::try_from(scenario.workers)?;
    ensure!(
        sockets + 100 < files,
        "{sockets} workers need more open files than the {files} that are allowed"
    );

    let Scenario { lease: heartbeat_timeout, tls, dialect, .. } = *scenario;
    let mode = Mode { heartbeat_timeout, dialect, tls };
    let mut controller = Controller::start(controller, mode).await?;
    sleep(SETTLE).await;
    let empty_bytes = controller.resident_bytes()?;

    eprintln!("fleet: registering {} nodes", scenario.workers);
    let nodes = controller.enrol(scenario.workers).await?;
    let mut tally = Tally::default();
    controller.told(&mut tally, "node.registered", sockets, DELIVERY).await?;

    eprintln!("fleet: connecting over {:?}", scenario.ramp);
    let started = Instant::now();
    let fleet = Fleet::start(&controller, nodes, scenario.gpus, scenario.ramp).await?;
    fleet.all_online(scenario.ramp + Duration::from_secs(120)).await?;
    let connected_in = started.elapsed();
    controller.told(&mut tally, "node.connected", sockets, DELIVERY).await?;
    let delivered_in = started.elapsed();

    eprintln!("fleet: measuring three phases of {:?}", scenario.phase);
    let silence = measure(&controller, &fleet, scenario, Talk::Nothing).await?;
    let connected_bytes = controller.resident_bytes()?;
    let beats = Talk::Heartbeats { every: scenario.pace, pings: false };
    let beats = measure(&controller, &fleet, scenario, beats).await?;
    let pinged = Talk::Heartbeats { every: scenario.pace, pings: true };
    let pinged = measure(&controller, &fleet, scenario, pinged).await?;
    fleet.talk(Talk::Everything);
    ensure!(fleet.online() == sockets, "workers were lost while nothing was wrong: {:?}", fleet.setbacks());

    eprintln!("fleet: killing the controller and starting it again");
    let killed = Instant::now();
    controller.kill().await?;
    fleet.nobody_online(Duration::from_secs(30)).await?;
    controller.start_again().await?;
    let listening = killed.elapsed();
    fleet.all_online(scenario.back).await?;
    let back_in = killed.elapsed();

    eprintln!("fleet: waiting for a whole lease ({:?})", scenario.lease);
    sleep(scenario.lease + scenario.lease / 10 + SETTLE).await;
    let restarted_bytes = controller.resident_bytes()?;
    let online_after_lease = fleet.online();
    controller.count_events(&mut tally).await?;

    Ok(Report {
        workers: sockets,
        gpus: scenario.gpus,
        tls: scenario.tls,
        pace: scenario.pace,
        empty_bytes,
        connected_bytes,
        restarted_bytes,
        connected_in,
        delivered_in,
        idle: silence.processor.map(|time| time.div_f64(silence.time.as_secs_f64())),
        beats: beats.beats,
        beat_cost: beats.cost_above(&silence),
        pinged_beats: pinged.beats,
        pinged_beat_cost: pinged.cost_above(&silence),
        pongs: pinged.pongs,
        listening_in: listening,
        back_in,
        online_after_lease,
        disconnected: tally.count("node.disconnected"),
        connected: tally.count("node.connected"),
        setbacks: fleet.setbacks(),
    })
}

/// What a phase has cost.
struct Phase {
    time: Duration,
    processor: ProcessorTime,
    beats: u64,
    pongs: u64,
}

async fn measure(controller: &Controller, fleet: &Fleet, scenario: &Scenario, talk: Talk) -> Result<Phase> {
    fleet.talk(talk);
    sleep(SETTLE).await;
    let (started, processor) = (Instant::now(), controller.processor_time()?);
    let (beats, pongs) = (fleet.beats(), fleet.pongs());
    sleep(scenario.phase).await;
    Ok(Phase {
        processor: controller.processor_time()?.above(processor),
        beats: fleet.beats() - beats,
        pongs: fleet.pongs() - pongs,
        time: started.elapsed(),
    })
}

impl Phase {
    /// Processor time per heartbeat, beyond what a fleet that says nothing costs.
    fn cost_above(&self, silence: &Phase) -> ProcessorTime {
        let share = self.time.as_secs_f64() / silence.time.as_secs_f64();
        let idle = silence.processor.map(|time| time.mul_f64(share));
        let beats = u32::try_from(self.beats).unwrap_or(u32::MAX).max(1);
        self.processor.above(idle).map(|time| time / beats)
    }
}
