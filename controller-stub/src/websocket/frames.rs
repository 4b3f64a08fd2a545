//! The frames of RFC 6455 (section 5) as a server reads and writes them. Pure. Keeps no buffer while nothing
//! is under way, because ten thousand idle connections would each pay for it. Does not decide what a message
//! means, how many frames a peer may send, or when a connection ends.

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// The longest payload of a control frame.
const MAX_CONTROL_BYTES: usize = 125;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

/// What a frame brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A piece of a message whose end is still to come.
    Piece,
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// The peer's close code, if it says one.
    Close(Option<u16>),
}

/// What a peer sends that no server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    TooLarge,
    NotUtf8,
    /// What of the protocol was broken.
    Protocol(&'static str),
}

/// Puts frames and messages together from bytes.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// What came and was not taken yet.
    unread: Vec<u8>,
    /// The message whose pieces are coming.
    message: Option<(Opcode, Vec<u8>)>,
}

/// The head of a frame.
struct Head {
    is_final: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// The payload's place in the bytes.
    start: usize,
    end: usize,
}

impl Reader {
    /// Takes in what the peer sent.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// The next frame, once all of it came. No message is larger than `max_bytes`.
    pub(super) fn next(&mut self, max_bytes: usize) -> Result<Option<Frame>, Fault> {
        let Some(head) = Head::read(&self.unread, max_bytes)? else { return Ok(None) };
        if self.unread.len() < head.end {
            return Ok(None);
        }
        let rest = self.unread.split_off(head.end);
        let mut payload = std::mem::replace(&mut self.unread, rest);
        payload.drain(..head.start);
        unmask(&mut payload, head.mask);
        self.understood(head.opcode, head.is_final, payload, max_bytes).map(Some)
    }

    fn understood(
        &mut self,
        opcode: Opcode,
        is_final: bool,
        payload: Vec<u8>,
        max_bytes: usize,
    ) -> Result<Frame, Fault> {
        let (opcode, message) = match (opcode, self.message.take()) {
            (Opcode::Continuation, None) => {
                return Err(Fault::Protocol("a message cannot begin with a continuation"));
            }
            (Opcode::Continuation, Some((opcode, mut message))) => {
                if message.len() + payload.len() > max_bytes {
                    return Err(Fault::TooLarge);
                }
                message.extend_from_slice(&payload);
                (opcode, message)
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Fault::Protocol("a message begins within another"));
            }
            (Opcode::Text | Opcode::Binary, None) => (opcode, payload),
            (control, message) => {
                self.message = message;
                return match control {
                    Opcode::Ping => Ok(Frame::Ping(payload)),
                    Opcode::Pong => Ok(Frame::Pong(payload)),
                    _ => close_code(&payload).map(Frame::Close),
                };
            }
        };
        match opcode {
            _ if !is_final => {
                self.message = Some((opcode, message));
                Ok(Frame::Piece)
            }
            Opcode::Text => String::from_utf8(message).map(Frame::Text).map_err(|_| Fault::NotUtf8),
            _ => Ok(Frame::Binary(message)),
        }
    }
}

impl Head {
    /// Reads the head at the beginning of `bytes`; `None` while a part of it is still to come.
    fn read(bytes: &[u8], max_bytes: usize) -> Result<Option<Self>, Fault> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        if first & RESERVED != 0 {
            return Err(Fault::Protocol("a reserved bit is set"));
        }
        if second & MASKED == 0 {
            return Err(Fault::Protocol("a client must mask its frames"));
        }
        let is_final = first & FINAL != 0;
        let opcode = match first & 0x0f {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return Err(Fault::Protocol("the opcode is reserved")),
        };
        let (length, extra) = match (second & !MASKED, rest) {
            (126, [a, b, ..]) => (u16::from_be_bytes([*a, *b]).into(), 2),
            (127, [a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 8),
            (126 | 127, _) => return Ok(None),
            (length, _) => (length.into(), 0),
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > max_bytes {
            return Err(Fault::TooLarge);
        }
        let is_control = matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
        if is_control && (!is_final || length > MAX_CONTROL_BYTES) {
            return Err(Fault::Protocol("a control frame must be whole and short"));
        }
        let Some(&mask) = rest.get(extra..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
        let start = 2 + extra + mask.len();
        Ok(Some(Self { is_final, opcode, mask, start, end: start + length }))
    }
}

fn unmask(payload: &mut [u8], mask @ [a, b, c, d]: [u8; 4]) {
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

/// The code in a close frame, which must be one that a peer may send (section 7.4).
fn close_code(payload: &[u8]) -> Result<Option<u16>, Fault> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() {
            Ok(None)
        } else {
            Err(Fault::Protocol("a close code has two bytes"))
        };
    };
    if std::str::from_utf8(reason).is_err() {
        return Err(Fault::NotUtf8);
    }
    match u16::from_be_bytes(*code) {
        code @ (1000..=1003 | 1007..=1013 | 3000..=4999) => Ok(Some(code)),
        _ => Err(Fault::Protocol("no peer may send this close code")),
    }
}

/// Adds a frame to `bytes`: a server's frames are whole and not masked.
pub(super) fn write(opcode: Opcode, payload: &[u8], bytes: &mut Vec<u8>) {
    bytes.push(FINAL | opcode as u8);
    let length = payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => bytes.push(short),
        (_, Ok(medium)) => {
            bytes.push(126);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
}

/// Adds a close frame to `bytes`. A reason that is too long for it is cut.
pub(super) fn write_close(code: Option<u16>, reason: &str, bytes: &mut Vec<u8>) {
    let mut payload = Vec::new();
    if let Some(code) = code {
        payload.extend(code.to_be_bytes());
        let end = reason.floor_char_boundary(MAX_CONTROL_BYTES - payload.len());
        payload.extend_from_slice(reason.get(..end).unwrap_or_default().as_bytes());
    }
    write(Opcode::Close, &payload, bytes);
}

#[cfg(test)]
mod tests;
