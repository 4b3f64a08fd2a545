//! The daemon under everything at once: random faults, several at a time, on real systemd over a
//! real network, with fast heartbeats. After each it is online again within the backoff's cap; it
//! is the same process at the end, and no larger. Then it is made to hang, and only then does the
//! watchdog end it. `AIO_LAB_SOAK_MINUTES` says for how long (1.5 unless told; from 10 on with the
//! longer faults), `AIO_LAB_SEED` repeats a run.

use std::{
    collections::BTreeMap,
    env,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use rustix::process::Signal;

use aio_tests::wait::wait_for;

mod fault;
mod ground;

use fault::{Deck, Fault};
use ground::Ground;

/// Full jitter under 60 s, a tenth more where the controller said how long, then a connection.
const BOUND: Duration = Duration::from_secs(60 + 6 + 15 + 5);
/// Of two medians, before and after.
const GROWTH_KIB: u64 = 1024;
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn whatever_befalls_it_the_daemon_goes_on_and_is_online_again_within_the_cap() -> Result<()> {
    let seed = env::var("AIO_LAB_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let minutes =
        env::var("AIO_LAB_SOAK_MINUTES").ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(1.5);
    let long = minutes >= 10.0;
    println!("seed {seed}, {minutes} minutes");
    let mut rng = Rng::with_seed(seed);
    // The last third of a token's life outlives the longest that the daemon can be away.
    let life = (Fault::longest(long) + BOUND) * 3;
    let mut soak = Soak::on(Ground::new(life, Duration::from_secs(20))?);
    let until = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let mut deck = Deck::default();
    while Instant::now() < until {
        let hand = deck.deal(&mut rng);
        soak.episode(&hand, long, &mut rng).with_context(|| format!("{hand:?}, seed {seed}"))?;
    }
    soak.report()?;
    soak.is_no_larger()?;
    only_a_hang_is_ended_by_the_watchdog(&soak.ground)
}

struct Soak {
    ground: Ground,
    began: Instant,
    /// The daemon's memory in KiB, once a second while anybody waits.
    sizes: Vec<u64>,
    /// How often each came.
    came: BTreeMap<Fault, usize>,
    /// Per fault, when nothing that may cut the daemon off was left at its end: how long it took
    /// from then until it was heard online.
    returns: BTreeMap<Fault, Vec<Duration>>,
    worst: Duration,
    /// Episodes of faults that must not cut it off, and how many sessions were lost in them.
    /// Reported only: on a busy computer a lease of 2 s may end by itself.
    harmless: (usize, u64),
}

impl Soak {
    fn on(ground: Ground) -> Self {
        Self {
            ground,
            began: Instant::now(),
            sizes: Vec::new(),
            came: BTreeMap::new(),
            returns: BTreeMap::new(),
            worst: Duration::ZERO,
            harmless: (0, 0),
        }
    }

    /// These faults, each beginning and ending at a moment of its own; then the world is well, and
    /// so is the daemon soon.
    fn episode(&mut self, hand: &[Fault], long: bool, rng: &mut Rng) -> Result<()> {
        let began = Instant::now();
        let mut moments = Vec::new();
        for fault in hand {
            let begin = began + SECOND.mul_f64(rng.f64() * 3.0);
            moments.push((begin, *fault, true));
            moments.push((begin + fault.duration(long, rng), *fault, false));
        }
        moments.sort_by_key(|(at, _, begins)| (*at, !begins));
        let harmless = !hand.iter().any(|fault| fault.may_cut_off());
        let sessions = self.ground.sessions()?;
        let mut took = Duration::ZERO;
        for (index, (at, fault, begins)) in moments.iter().enumerate() {
            self.pass_until(*at)?;
            if *begins {
                self.ground.begin(*fault)?;
                continue;
            }
            self.ground.end(*fault)?;
            // Whatever else still goes on must not keep it from coming back.
            let rest = &moments[index + 1..];
            let counts = |fault: &Fault| harmless || fault.may_cut_off();
            if counts(fault) && !rest.iter().any(|(_, other, _)| counts(other)) {
                let well = Instant::now();
                self.ground.wait_until_online(BOUND)?;
                took = well.elapsed();
                self.returns.entry(*fault).or_default().push(took);
            }
        }
        let lasted = began.elapsed().saturating_sub(took);
        self.ground.wait_until_online(BOUND)?;
        if hand.iter().any(|fault| matches!(fault, Fault::DriverHung | Fault::GpuLost)) {
            self.ground.wait_until_healthy(BOUND)?;
        }
        self.ground.is_the_same_process()?;
        if harmless {
            self.harmless.0 += 1;
            self.harmless.1 += self.ground.sessions()?.saturating_sub(sessions);
        }
        for fault in hand {
            *self.came.entry(*fault).or_default() += 1;
        }
        self.worst = self.worst.max(took);
        println!(
            "{:5.0} s: {hand:?} for {:.1} s, online {:.1} s later",
            self.began.elapsed().as_secs_f64(),
            lasted.as_secs_f64(),
            took.as_secs_f64()
        );
        self.pass_until(Instant::now() + SECOND.mul_f64(1.0 + rng.f64() * 2.0))
    }

    /// Lets time pass, and looks at the daemon's size meanwhile.
    fn pass_until(&mut self, end: Instant) -> Result<()> {
        loop {
            self.sizes.push(self.ground.resident()?);
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(SECOND));
        }
    }

    fn report(&self) -> Result<()> {
        for (fault, times) in &self.came {
            let returns = self.returns.get(fault).map(Vec::as_slice).unwrap_or_default();
            let worst = returns.iter().max().copied().unwrap_or_default();
            println!(
                "{fault:?}: {times} times, {} of them with nothing left that may cut it off; then online {:.1} s later at worst",
                returns.len(),
                worst.as_secs_f64()
            );
        }
        for (what, words) in [
            ("tokens exchanged", "the new token is the one from now on"),
            ("offers of tokens given back", "an offered token is given back"),
            ("clock settings seen", "the clock of this machine was set"),
        ] {
            println!("{what}: {}", self.ground.logged(words)?);
        }
        let (episodes, lost) = self.harmless;
        println!("episodes that must not cut it off: {episodes}; sessions lost in them: {lost}");
        let (before, after) = self.halves();
        println!(
            "{:.1} minutes: worst {:.1} s; restarts {}; RSS {} KiB at first, {before} KiB in the second quarter, {after} KiB in the last, {} KiB at most",
            self.began.elapsed().as_secs_f64() / 60.0,
            self.worst.as_secs_f64(),
            self.ground.restarts()?,
            self.sizes.first().copied().unwrap_or_default(),
            self.sizes.iter().max().copied().unwrap_or_default(),
        );
        ensure!(self.ground.logged("the new token is the one from now on")? > 0, "no token was exchanged");
        Ok(())
    }

    /// The median size in the second quarter of the run, after the daemon has warmed up, and in the last.
    fn halves(&self) -> (u64, u64) {
        let quarter = self.sizes.len() / 4;
        (median(&self.sizes[quarter..quarter * 2]), median(&self.sizes[quarter * 3..]))
    }

    fn is_no_larger(&self) -> Result<()> {
        let (before, after) = self.halves();
        ensure!(after <= before + GROWTH_KIB, "RSS grew from {before} to {after} KiB: {:?}", self.sizes);
        Ok(())
    }
}

fn median(sizes: &[u64]) -> u64 {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    sizes.get(sizes.len() / 2).copied().unwrap_or_default()
}

fn only_a_hang_is_ended_by_the_watchdog(ground: &Ground) -> Result<()> {
    ensure!(ground.logged("Watchdog timeout")? == 0, "the watchdog has fired before");
    ground.signal(Signal::STOP)?;
    wait_for(
        "systemd to start another",
        Duration::from_secs(60),
        || ground.restarts(),
        |restarts| *restarts == 1,
    )?;
    ensure!(ground.logged("Watchdog timeout")? == 1, "it was not the watchdog");
    ground.wait_until_online(BOUND)
}
