//! Makes new inputs of known ones: bits and bytes that change, go, come or are repeated, pieces of
//! other seeds, and values that parsers dislike in the place of values they expect. The same seed
//! makes the same inputs.

use fastrand::Rng;

/// What stands in no fixture, and what a parser may trip over.
const DICTIONARY: &[&[u8]] = &[
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"-1",
    b"0",
    b"1e308",
    b"1e999",
    b"-0.0",
    b"18446744073709551616",
    b"9223372036854775808",
    b"\"\"",
    b"\"\\ud800\"",
    b"\"\\u0000\"",
    b"\xff",
    b"\xed\xa0\x80",
    b"\0",
    b"\"",
    b"\\",
    b",",
    b":",
    b"]",
    b"}",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"\"type\":",
    b"\"data\":",
    b"\"nodeId\":",
    b"\r\n",
    b"9999-12-31T23:59:59.999Z",
    b"0000-00-00T00:00:00Z",
    b"999999999999999999999999999999999999999999",
    b".",
    b"v1,",
    b" ",
    "\u{202e}".as_bytes(),
    "\u{1f980}".as_bytes(),
];

pub(super) struct Mutator(Rng);

impl Mutator {
    pub(super) fn new(seed: u64) -> Self {
        Self(Rng::with_seed(seed))
    }

    /// Writes another input into `input`: one of the seeds, changed between never and eight times,
    /// seldom often.
    pub(super) fn mutate(&mut self, seeds: &[Vec<u8>], input: &mut Vec<u8>) {
        let Self(chance) = self;
        input.clear();
        input.extend_from_slice(&seeds[chance.usize(..seeds.len())]);
        let most = chance.usize(1..=8);
        for _ in 0..chance.usize(0..=most) {
            let at = chance.usize(0..=input.len());
            let end = input.len().min(at + chance.usize(0..16));
            match chance.u8(0..10) {
                0 if at < input.len() => input[at] ^= 1 << chance.u8(0..8),
                1 if at < input.len() => input[at] = chance.u8(..),
                2 => input.truncate(at),
                3 => drop(input.drain(at..end)),
                4 => input.insert(at, chance.u8(..)),
                5 => {
                    let piece = input[at..end].to_vec();
                    let times = 1 + chance.usize(0..64);
                    input.splice(at..at, piece.repeat(times));
                }
                6 => {
                    let other = &seeds[chance.usize(..seeds.len())];
                    let from = chance.usize(0..=other.len());
                    let to = other.len().min(from + chance.usize(0..200));
                    input.splice(at..end, other[from..to].iter().copied());
                }
                7 => replace_value(input, at, DICTIONARY[chance.usize(..DICTIONARY.len())]),
                _ => {
                    let word = DICTIONARY[chance.usize(..DICTIONARY.len())];
                    input.splice(at..end, word.iter().copied());
                }
            }
            // As much as a frame or a body may have.
            input.truncate(64 * 1024);
        }
    }
}

/// Puts `word` in the place of the JSON value behind the next colon, so that the rest stays well-formed.
fn replace_value(input: &mut Vec<u8>, at: usize, word: &[u8]) {
    let Some(colon) = input[at..].iter().position(|byte| *byte == b':') else { return };
    let begin = at + colon + 1;
    let quoted = input[begin..].trim_ascii_start().first() == Some(&b'"');
    let stops: &[u8] = if quoted { b"\"" } else { b",}]\n" };
    let skip = if quoted { input[begin..].iter().position(|byte| *byte == b'"').unwrap_or(0) + 1 } else { 0 };
    let length = input[begin + skip..].iter().position(|byte| stops.contains(byte));
    let end = begin + skip + length.map_or(0, |length| length + usize::from(quoted));
    input.splice(begin..end, word.iter().copied());
}
