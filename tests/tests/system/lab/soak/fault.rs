//! What befalls the daemon in the soak, how long each lasts, and which do not go together. Chance
//! comes in from outside; what a fault does to the machine is the ground's business.

use std::time::Duration;

use fastrand::Rng;

/// Something that goes wrong for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// No packet arrives, and nobody is told.
    NetworkCut,
    /// One packet in twenty is lost, in each direction.
    PacketsLost,
    /// SIGKILL, and it is there again later.
    ControllerKilled,
    /// It takes connections and says nothing.
    ControllerHung,
    /// systemd's bus is another.
    BusRestarted,
    /// No call into the GPU driver returns.
    DriverHung,
    /// One GPU has fallen off the bus.
    GpuLost,
    /// The machine's clock is an hour ahead.
    ClockForward,
    /// The machine's clock is an hour behind.
    ClockBack,
    /// No byte more fits beside the daemon's state.
    DiskFull,
    /// SIGSTOP, and SIGCONT later.
    Stopped,
}

pub(super) const FAULTS: [Fault; 11] = [
    Fault::NetworkCut,
    Fault::PacketsLost,
    Fault::ControllerKilled,
    Fault::ControllerHung,
    Fault::BusRestarted,
    Fault::DriverHung,
    Fault::GpuLost,
    Fault::ClockForward,
    Fault::ClockBack,
    Fault::DiskFull,
    Fault::Stopped,
];

impl Fault {
    /// Between how many seconds it lasts, in a run that is short or long.
    fn span(self, long: bool) -> (f64, f64) {
        match (self, long) {
            (Self::BusRestarted, _) => (0.0, 0.0),
            (Self::NetworkCut, true) => (1.0, 300.0),
            // A watchdog of 30 s may fire when a process stands still for 15 s and more.
            (Self::Stopped, true) => (1.0, 14.0),
            // The daemon's patience with the driver is 5 s.
            (Self::DriverHung, true) => (6.0, 60.0),
            (Self::DriverHung, false) => (6.0, 9.0),
            (_, true) => (1.0, 60.0),
            (_, false) => (1.0, 7.0),
        }
    }

    /// Whether the session may suffer from it. From all others it must not.
    pub(super) fn may_cut_off(self) -> bool {
        match self {
            Self::NetworkCut
            | Self::PacketsLost
            | Self::ControllerKilled
            | Self::ControllerHung
            | Self::Stopped => true,
            Self::BusRestarted
            | Self::DriverHung
            | Self::GpuLost
            | Self::ClockForward
            | Self::ClockBack
            | Self::DiskFull => false,
        }
    }

    /// How long it lasts. The short ones are as many as the long ones, whatever the span.
    pub(super) fn duration(self, long: bool, rng: &mut Rng) -> Duration {
        let (least, most) = self.span(long);
        if least >= most {
            return Duration::from_secs_f64(least);
        }
        Duration::from_secs_f64(least * (most / least).powf(rng.f64()))
    }

    /// The longest that any lasts.
    pub(super) fn longest(long: bool) -> Duration {
        let most = FAULTS.map(|fault| fault.span(long).1).into_iter().fold(0.0, f64::max);
        Duration::from_secs_f64(most)
    }

    fn goes_with(self, other: Self) -> bool {
        let same_thing = |fault: Self| match fault {
            Self::NetworkCut | Self::PacketsLost => 0,
            Self::ControllerKilled | Self::ControllerHung => 1,
            Self::DriverHung | Self::GpuLost => 2,
            Self::ClockForward | Self::ClockBack => 3,
            Self::BusRestarted => 4,
            Self::DiskFull => 5,
            Self::Stopped => 6,
        };
        same_thing(self) != same_thing(other)
    }
}

/// All faults in a random order, again and again: each comes once before any comes twice.
#[derive(Debug, Default)]
pub(super) struct Deck(Vec<Fault>);

impl Deck {
    /// One to three faults that go together.
    pub(super) fn deal(&mut self, rng: &mut Rng) -> Vec<Fault> {
        let mut hand: Vec<Fault> = Vec::new();
        for _ in 0..=rng.usize(..3) {
            if self.0.is_empty() {
                self.0 = FAULTS.to_vec();
                rng.shuffle(&mut self.0);
            }
            let fits = self.0.iter().position(|fault| hand.iter().all(|other| other.goes_with(*fault)));
            hand.extend(fits.map(|index| self.0.remove(index)));
        }
        hand
    }
}

#[test]
fn every_fault_is_dealt_once_before_any_is_dealt_twice() {
    let mut rng = Rng::with_seed(7);
    let mut deck = Deck::default();
    let mut dealt = Vec::new();
    while dealt.len() < FAULTS.len() * 20 {
        let hand = deck.deal(&mut rng);
        assert!((1..=3).contains(&hand.len()), "{hand:?}");
        dealt.extend(hand);
        let times = FAULTS.map(|fault| dealt.iter().filter(|other| **other == fault).count());
        let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        // A hand may begin with the rest of one deck and end with the next.
        assert!(most - least <= 2, "{times:?}");
    }
}
