//! Hostile input, by the million: golden fixtures, mutated by chance from a known seed, are given to
//! everything that reads what others wrote. Nothing may panic, and memory may not grow. Some tens of
//! thousands run among the tests; `cargo xtask load fuzz` runs ten million. `FUZZ_INPUTS` and `FUZZ_SEED`
//! choose others. `fields` holds what a refusal of the API must say.

mod fields;
mod mutation;
mod targets;

use std::{
    fs,
    time::{Duration, Instant},
};

use mutation::Mutator;
use targets::Target;

/// Among the tests, where every input is read by unoptimised code.
const INPUTS: u64 = 40_000;

/// From here on, memory is measured: fewer inputs are lost in the process's own growth, and in that
/// of other tests beside.
const MEASURED: u64 = 1_000_000;

/// More than what the allocator's moods explain, less than a leak of a byte per input would be.
const GROWTH_BYTES: u64 = 4 * 1024 * 1024;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().map_or(otherwise, |text| text.parse().unwrap())
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Shows the input that is being read when a panic passes.
struct Witness<'a> {
    target: &'a str,
    input: &'a [u8],
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} panicked at {:?}", self.target, String::from_utf8_lossy(self.input));
        }
    }
}

#[test]
fn no_input_panics_and_memory_does_not_grow() {
    let (inputs, seed) = (number("FUZZ_INPUTS", INPUTS), number("FUZZ_SEED", 1));
    let mut mutator = Mutator::new(seed);
    let mut targets = targets::all();
    let mut counts = vec![(0_u64, 0_u64, Duration::ZERO); targets.len()];
    let (started, mut settled, mut input) = (Instant::now(), None, Vec::new());
    for round in 0..inputs {
        let index = usize::try_from(round).unwrap() % targets.len();
        let Target { name, seeds, read } = &mut targets[index];
        mutator.mutate(seeds, &mut input);
        let witness = Witness { target: name, input: &input };
        let began = Instant::now();
        let accepted = read(&input);
        drop(witness);
        let (taken, refused, time) = &mut counts[index];
        *(if accepted { taken } else { refused }) += 1;
        *time += began.elapsed();
        if round == inputs / 5 {
            settled = Some(resident_bytes());
        }
    }
    let (settled, end) = (settled.unwrap(), resident_bytes());
    println!("{inputs} inputs of seed {seed} in {:.1} s", started.elapsed().as_secs_f64());
    println!("resident: {} KiB after a fifth, {} KiB at the end", settled / 1024, end / 1024);
    for (Target { name, .. }, (accepted, refused, time)) in targets.iter().zip(counts) {
        let each = time.as_secs_f64() * 1e6 / (accepted + refused) as f64;
        println!("{name:>12}: {accepted:>8} accepted, {refused:>8} refused, {each:.1} µs each");
        assert!(accepted > 0 && refused > 0, "{name} saw {accepted} good and {refused} bad inputs");
    }
    if inputs >= MEASURED {
        assert!(end < settled + GROWTH_BYTES, "memory grew from {settled} to {end} bytes");
    }
}
