//! A window as bytes, and back. Pure. Numbers are LEB128:
//!
//! ```text
//! 1, samples, which of the machine's series (a bit each), those; then for each GPU:
//! which series (a bit each), with NEXT, INDEX or NAME; its index or the length of its name and the name; those
//! series   least, greatest − least, and unless that is 0 how far the mean is between them in 255ths (a byte)
//! ```
//!
//! Bytes of another version, or that are cut off, read as nothing.

use super::{
    device::Device,
    window::{Spread, Window},
};

const VERSION: u8 = 1;

/// The GPU's index follows that of the one before, or is 0.
const NEXT: u8 = 0;
const INDEX: u8 = 0x10;
const NAME: u8 = 0x20;
const KINDS: u8 = 0xf0;

/// A series as it was packed, in its unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Packed {
    pub min: f64,
    pub mean: f64,
    pub max: f64,
}

/// A window as it was packed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unpacked {
    pub samples: u32,
    pub host: [Option<Packed>; 2],
    pub gpus: Vec<(Device, [Option<Packed>; 4])>,
}

pub(super) fn pack(window: &Window) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    number(&mut bytes, u32::from(window.samples));
    bytes.push(told(&window.host));
    series(&mut bytes, &window.host);
    let mut next = 0;
    for (device, spreads) in &window.gpus {
        let told = told(spreads);
        match device {
            Device::Index(index) if *index == next => bytes.push(told | NEXT),
            Device::Index(index) => bytes.extend([told | INDEX, *index]),
            Device::Named(name) => {
                bytes.push(told | NAME);
                number(&mut bytes, u32::try_from(name.len()).unwrap_or(0));
                bytes.extend_from_slice(name.as_bytes());
            }
        }
        next = following(device, next);
        series(&mut bytes, spreads);
    }
    bytes
}

/// The index that a GPU has if nothing is said of it.
fn following(device: &Device, next: u8) -> u8 {
    if let Device::Index(index) = device { index.saturating_add(1) } else { next }
}

/// A bit for each series of which something is known.
fn told(spreads: &[Spread]) -> u8 {
    let bit = |(bit, spread): (usize, &Spread)| if spread.is_empty() { 0 } else { 1_u8 << bit };
    spreads.iter().enumerate().map(bit).sum()
}

fn number(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push((number & 0x7f) as u8);
}

fn series(bytes: &mut Vec<u8>, spreads: &[Spread]) {
    for spread in spreads.iter().filter(|spread| !spread.is_empty()) {
        number(bytes, spread.min);
        number(bytes, spread.max - spread.min);
        if spread.max > spread.min {
            bytes.push(spread.lean());
        }
    }
}

pub(super) fn unpack(bytes: &[u8]) -> Option<Unpacked> {
    let mut rest = Bytes(bytes);
    if rest.byte()? != VERSION {
        return None;
    }
    let (samples, told) = (rest.number()?, rest.byte()?);
    let host = rest.series(told)?;
    let (mut gpus, mut next) = (Vec::new(), 0);
    while !rest.0.is_empty() {
        let told = rest.byte()?;
        let device = match told & KINDS {
            NEXT => Device::Index(next),
            INDEX => Device::Index(rest.byte()?),
            NAME => {
                let length = usize::try_from(rest.number()?).ok()?;
                Device::Named(std::str::from_utf8(rest.take(length)?).ok()?.into())
            }
            _ => return None,
        };
        next = following(&device, next);
        gpus.push((device, rest.series(told)?));
    }
    Some(Unpacked { samples, host, gpus })
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u32> {
        let mut number = 0_u32;
        for shift in (0..32).step_by(7) {
            let byte = self.byte()?;
            number |= u32::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn series<const N: usize>(&mut self, told: u8) -> Option<[Option<Packed>; N]> {
        let mut series = [None; N];
        for (bit, place) in series.iter_mut().enumerate() {
            if told & (1_u8 << bit) == 0 {
                continue;
            }
            let (min, range) = (f64::from(self.number()?), f64::from(self.number()?));
            let lean = if range > 0.0 { f64::from(self.byte()?) / 255.0 } else { 0.0 };
            *place = Some(Packed { min, mean: min + range * lean, max: min + range });
        }
        Some(series)
    }
}
