//! Counts the frames in what a peer sends, as the bytes come in. The WebSocket library shows whole messages
//! only: pings, pongs and the pieces of a message would pass uncounted. Pure. What is no frame at all, the
//! library finds out.

/// A place in a stream of frames.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FrameCounter {
    part: Part,
    /// Bytes of payload that are still to come, as far as is known.
    payload: u64,
}

#[derive(Debug, Clone, Copy, Default)]
enum Part {
    /// The first byte of a frame is next.
    #[default]
    Start,
    /// The byte with the short length is next.
    ShortLength,
    /// So many bytes of the long length are next, and the mask after them.
    LongLength {
        left: u8,
        masked: bool,
    },
    /// So many bytes of the mask are next.
    Mask {
        left: u8,
    },
    Payload,
}

impl FrameCounter {
    /// Reads on, and says how many frames begin in `bytes`.
    pub(super) fn count(&mut self, mut bytes: &[u8]) -> u32 {
        let mut frames = 0;
        while let Some((byte, rest)) = bytes.split_first() {
            bytes = rest;
            match self.part {
                Part::Start => {
                    frames += 1;
                    (self.part, self.payload) = (Part::ShortLength, 0);
                }
                Part::ShortLength => {
                    let masked = byte & 0x80 != 0;
                    match byte & 0x7f {
                        126 => self.part = Part::LongLength { left: 2, masked },
                        127 => self.part = Part::LongLength { left: 8, masked },
                        length => {
                            self.payload = length.into();
                            self.after_length(masked);
                        }
                    }
                }
                Part::LongLength { left, masked } => {
                    self.payload = self.payload << 8 | u64::from(*byte);
                    match left - 1 {
                        0 => self.after_length(masked),
                        left => self.part = Part::LongLength { left, masked },
                    }
                }
                Part::Mask { left: 1 } => self.after_header(),
                Part::Mask { left } => self.part = Part::Mask { left: left - 1 },
                Part::Payload => {
                    let skipped = rest.len().min(usize::try_from(self.payload - 1).unwrap_or(usize::MAX));
                    bytes = rest.get(skipped..).unwrap_or_default();
                    self.payload -= 1 + skipped as u64;
                    self.after_header();
                }
            }
        }
        frames
    }

    fn after_length(&mut self, masked: bool) {
        if masked {
            self.part = Part::Mask { left: 4 };
        } else {
            self.after_header();
        }
    }

    fn after_header(&mut self) {
        self.part = if self.payload == 0 { Part::Start } else { Part::Payload };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::frame::{
        FrameHeader,
        coding::{Control, Data, OpCode},
    };

    use super::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let opcode = match opcode {
            0 => OpCode::Data(Data::Continue),
            1 => OpCode::Data(Data::Text),
            2 => OpCode::Control(Control::Ping),
            _ => OpCode::Control(Control::Pong),
        };
        let header =
            FrameHeader { opcode, mask: masked.then_some([0x80, 0, 0x89, 1]), ..FrameHeader::default() };
        let mut bytes = Vec::new();
        header.format(length as u64, &mut bytes).unwrap();
        bytes.resize(bytes.len() + length, 0x81);
        bytes
    }

    proptest! {
        #[test]
        fn every_frame_is_counted_however_the_bytes_come(
            frames in prop::collection::vec((0_u8..4, prop_oneof![Just(0_usize), 1_usize..130, 65_000_usize..66_000], any::<bool>()), 0..20),
            cuts in prop::collection::vec(1_usize..3_000, 1..50),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(opcode, length, masked)| frame(*opcode, *length, *masked)).collect();
            let (mut counter, mut counted, mut rest) = (FrameCounter::default(), 0, &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                counted += counter.count(piece);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(counted as usize, frames.len());
        }

        #[test]
        fn no_bytes_panic_or_count_more_than_one_frame_in_two(bytes: Vec<u8>) {
            prop_assert!(FrameCounter::default().count(&bytes) as usize <= bytes.len().div_ceil(2));
        }
    }
}
