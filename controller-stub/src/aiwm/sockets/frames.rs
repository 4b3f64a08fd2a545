//! Where the frames of a WebSocket begin and end, in bytes that pass by (pure). Keeps no payload but its
//! first bytes. Does not check what a frame says; whoever reads it does.

/// So many first bytes of a message are kept: the kind of a packet and its namespace fit.
const HEAD_BYTES: usize = 24;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTROL: u8 = 0x08;
const CONTINUATION: u8 = 0x00;

/// One direction of a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Scanner {
    header: [u8; 14],
    /// Bytes of the header that are here.
    have: usize,
    /// Bytes of the payload that are still to come.
    rest: u64,
    /// Bytes of the message whose frames come.
    message_bytes: u64,
    head: [u8; HEAD_BYTES],
    head_length: usize,
    /// How many of the head's bytes belong to this message.
    head_wanted: usize,
    mask: Option<[u8; 4]>,
}

/// What a piece of the stream held.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen<'a> {
    /// A frame begins. `bytes` is what its message has by now, itself included.
    Frame { bytes: u64 },
    /// The first bytes of a message are here.
    Head(&'a [u8]),
    /// Nothing that counts.
    Nothing,
}

impl Scanner {
    /// Whether the next byte begins a frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.have == 0 && self.rest == 0
    }

    /// Takes bytes up to the next thing that counts, and says how many they were.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, Seen<'_>) {
        if self.rest > 0 {
            let length = usize::try_from(self.rest).unwrap_or(usize::MAX).min(bytes.len());
            let (payload, _) = bytes.split_at(length);
            let wanted = self.head_wanted.saturating_sub(self.head_length);
            if wanted == 0 {
                self.rest -= length as u64;
                return (length, Seen::Nothing);
            }
            let mut taken = 0;
            for byte in payload.iter().take(wanted) {
                let mask = self.mask.map_or(0, |mask| mask.get(self.head_length % 4).copied().unwrap_or(0));
                if let Some(place) = self.head.get_mut(self.head_length) {
                    *place = byte ^ mask;
                }
                self.head_length += 1;
                taken += 1;
            }
            self.rest -= taken as u64;
            let whole = self.head_length == self.head_wanted;
            let head = self.head.get(..self.head_length).unwrap_or_default();
            return (taken, if whole { Seen::Head(head) } else { Seen::Nothing });
        }
        let mut taken = 0;
        for byte in bytes {
            if let Some(place) = self.header.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            taken += 1;
            if self.have >= 2 && self.have == self.header_length() {
                return (taken, self.begin());
            }
        }
        (taken, Seen::Nothing)
    }

    fn header_length(&self) -> usize {
        let [_, second, ..] = self.header;
        let extra = match second & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + extra + if second & MASKED == 0 { 0 } else { 4 }
    }

    fn begin(&mut self) -> Seen<'_> {
        let [first, second, a, b, c, d, e, f, g, h, ..] = self.header;
        let length = match second & !MASKED {
            126 => u16::from_be_bytes([a, b]).into(),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            short => short.into(),
        };
        let mask = self.header.get(..self.header_length()).and_then(|it| it.last_chunk::<4>());
        self.mask = mask.copied().filter(|_| second & MASKED != 0);
        (self.have, self.rest) = (0, length);
        let opcode = first & 0x0f;
        if opcode & CONTROL != 0 {
            self.head_wanted = 0;
            self.head_length = 0;
            return Seen::Frame { bytes: length };
        }
        if opcode == CONTINUATION {
            self.head_wanted = 0;
            self.head_length = 0;
            self.message_bytes = self.message_bytes.saturating_add(length);
        } else {
            self.message_bytes = length;
            self.head_length = 0;
            self.head_wanted = usize::try_from(length).unwrap_or(usize::MAX).min(HEAD_BYTES);
        }
        let bytes = self.message_bytes;
        if first & FINAL != 0 && opcode == CONTINUATION {
            self.message_bytes = 0;
        }
        Seen::Frame { bytes }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
        let masked = if mask.is_some() { MASKED } else { 0 };
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..=125 => bytes.push(masked | u8::try_from(length).unwrap()),
            length @ 126..=65535 => {
                bytes.push(masked | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                bytes.push(masked | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(mask.unwrap_or_default().iter().take(if mask.is_some() { 4 } else { 0 }));
        let mask = mask.unwrap_or_default();
        bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        bytes
    }

    /// The frames' message sizes and the heads, however the bytes are cut.
    fn scan(bytes: &[u8], piece: usize) -> (Vec<u64>, Vec<Vec<u8>>) {
        let (mut scanner, mut sizes, mut heads) = (Scanner::default(), vec![], vec![]);
        for mut part in bytes.chunks(piece.max(1)) {
            while !part.is_empty() {
                let (taken, seen) = scanner.take(part);
                match seen {
                    Seen::Frame { bytes } => sizes.push(bytes),
                    Seen::Head(head) => heads.push(head.to_vec()),
                    Seen::Nothing => {}
                }
                part = &part[taken..];
            }
        }
        assert!(scanner.is_between_frames());
        (sizes, heads)
    }

    proptest! {
        #[test]
        fn frames_are_found_however_the_bytes_are_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..8),
            mask in prop::option::of(any::<[u8; 4]>()),
            piece in 1_usize..400,
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|payload| frame(0x81, payload, mask)).collect();
            let (sizes, heads) = scan(&bytes, piece);
            prop_assert_eq!(sizes, payloads.iter().map(|it| it.len() as u64).collect::<Vec<_>>());
            let expected: Vec<Vec<u8>> = payloads.iter().filter(|it| !it.is_empty())
                .map(|it| it.iter().copied().take(HEAD_BYTES).collect()).collect();
            prop_assert_eq!(heads, expected);
        }

        #[test]
        fn no_bytes_panic_and_all_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut scanner = Scanner::default();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (taken, _) = scanner.take(rest);
                prop_assert!(taken > 0);
                rest = &rest[taken..];
            }
        }
    }

    #[test]
    fn a_message_in_pieces_is_as_large_as_all_of_them() {
        let mask = Some([1, 2, 3, 4]);
        let bytes = [
            frame(0x01, &[7; 100], mask),
            frame(0x89, b"ping", mask),
            frame(0x00, &[7; 200], mask),
            frame(0x80, &[7; 50], mask),
            frame(0x81, b"42", mask),
        ]
        .concat();
        assert_eq!(scan(&bytes, 1000).0, [100, 4, 300, 350, 2]);
    }
}
