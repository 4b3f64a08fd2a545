//! The frames against a library that speaks the same protocol, whatever comes and however it is cut.

use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::{
    Error, Message, WebSocket,
    protocol::{
        Role, WebSocketConfig,
        frame::{
            FrameHeader,
            coding::{Control, Data, OpCode},
        },
    },
};

use super::*;

const MAX_BYTES: usize = 70_000;

/// What became of a stream of frames: what it held, and how it ended.
#[derive(Debug, PartialEq)]
struct Story {
    frames: Vec<Frame>,
    fault: Option<Kind>,
}

#[derive(Debug, PartialEq)]
enum Kind {
    TooLarge,
    NotUtf8,
    Protocol,
}

/// A peer that has said all, and never reads.
struct Said(Cursor<Vec<u8>>);

impl Read for Said {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn as_the_library_reads(bytes: Vec<u8>) -> Story {
    let config = WebSocketConfig::default().max_frame_size(Some(MAX_BYTES)).max_message_size(Some(MAX_BYTES));
    let mut socket = WebSocket::from_raw_socket(Said(Cursor::new(bytes)), Role::Server, Some(config));
    let mut frames = Vec::new();
    let fault = loop {
        frames.push(match socket.read() {
            Ok(Message::Text(text)) => Frame::Text(text.to_string()),
            Ok(Message::Binary(bytes)) => Frame::Binary(bytes.into()),
            Ok(Message::Ping(bytes)) => Frame::Ping(bytes.into()),
            Ok(Message::Pong(bytes)) => Frame::Pong(bytes.into()),
            // It takes a code that no peer may send for this one.
            Ok(Message::Close(Some(frame))) if frame.reason == "Protocol violation" => {
                break Some(Kind::Protocol);
            }
            Ok(Message::Close(frame)) => {
                frames.push(Frame::Close(frame.map(|frame| frame.code.into())));
                break None;
            }
            Ok(Message::Frame(_)) => unreachable!(),
            Err(Error::Capacity(_)) => break Some(Kind::TooLarge),
            Err(Error::Utf8(_)) => break Some(Kind::NotUtf8),
            Err(Error::Protocol(_)) => break Some(Kind::Protocol),
            Err(_) => break None,
        });
    };
    Story { frames, fault }
}

fn as_we_read(bytes: &[u8], cuts: &[usize]) -> Story {
    let (mut reader, mut frames, mut rest) = (Reader::default(), Vec::new(), bytes);
    let mut cuts = cuts.iter().cycle();
    loop {
        match reader.next(MAX_BYTES) {
            Ok(Some(Frame::Piece)) => {}
            Ok(Some(close @ Frame::Close(_))) => {
                frames.push(close);
                return Story { frames, fault: None };
            }
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) if rest.is_empty() => return Story { frames, fault: None },
            Ok(None) => {
                let (piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                reader.push(piece);
                rest = after;
            }
            Err(fault) => {
                let kind = match fault {
                    Fault::TooLarge => Kind::TooLarge,
                    Fault::NotUtf8 => Kind::NotUtf8,
                    Fault::Protocol(_) => Kind::Protocol,
                };
                return Story { frames, fault: Some(kind) };
            }
        }
    }
}

fn encoded(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mask = [0x80, 0, 0x89, 1];
    let header = FrameHeader { opcode, is_final, mask: Some(mask), ..FrameHeader::default() };
    let mut bytes = Vec::new();
    header.format(payload.len() as u64, &mut bytes).unwrap();
    bytes.extend(payload.iter().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn opcode() -> impl Strategy<Value = OpCode> {
    prop_oneof![
        3 => Just(OpCode::Data(Data::Continue)),
        3 => Just(OpCode::Data(Data::Text)),
        2 => Just(OpCode::Data(Data::Binary)),
        2 => Just(OpCode::Control(Control::Ping)),
        1 => Just(OpCode::Control(Control::Pong)),
    ]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => Just(Vec::new()),
        4 => "\\PC{1,40}".prop_map(String::into_bytes),
        1 => (100_usize..140).prop_map(|length| vec![b'x'; length]),
        1 => (65_000_usize..71_000).prop_map(|length| vec![b'x'; length]),
    ]
}

proptest! {
    #[test]
    fn frames_are_read_as_the_library_reads_them_however_the_bytes_come(
        frames in prop::collection::vec((opcode(), any::<bool>(), payload()), 0..8),
        close in prop::option::of((any::<bool>(), 990_u16..5_010, payload())),
        cuts in prop::collection::vec(1_usize..3_000, 1..20),
    ) {
        let mut bytes: Vec<u8> =
            frames.iter().flat_map(|(opcode, is_final, payload)| encoded(*opcode, *is_final, payload)).collect();
        if let Some((has_code, code, reason)) = close {
            let mut payload = if has_code { code.to_be_bytes().to_vec() } else { Vec::new() };
            payload.extend(reason);
            bytes.extend(encoded(OpCode::Control(Control::Close), true, &payload));
        }
        prop_assert_eq!(as_we_read(&bytes, &cuts), as_the_library_reads(bytes));
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, cuts in prop::collection::vec(1_usize..5, 1..20)) {
        as_we_read(&bytes, &cuts);
    }

    #[test]
    fn the_library_reads_what_is_written(text in "\\PC{0,200}", length in prop_oneof![0_usize..130, 65_000_usize..66_000]) {
        let long = "x".repeat(length);
        let mut bytes = Vec::new();
        write(Opcode::Text, text.as_bytes(), &mut bytes);
        write(Opcode::Text, long.as_bytes(), &mut bytes);
        write_close(Some(4401), &text, &mut bytes);
        let mut socket = WebSocket::from_raw_socket(Said(Cursor::new(bytes)), Role::Client, None);
        prop_assert_eq!(socket.read().unwrap(), Message::text(text.clone()));
        prop_assert_eq!(socket.read().unwrap(), Message::text(long));
        let Message::Close(Some(frame)) = socket.read().unwrap() else { panic!("no close frame") };
        prop_assert_eq!(u16::from(frame.code), 4401);
        prop_assert!(text.starts_with(frame.reason.as_str()) && frame.reason.len() + 4 > text.len().min(123));
    }
}

#[test]
fn a_text_is_judged_whole() {
    let whole = "é".as_bytes();
    let text = |payload: &[u8], is_final| encoded(OpCode::Data(Data::Text), is_final, payload);
    let read = |bytes: &[u8]| as_we_read(bytes, &[1_000]);
    assert_eq!(read(&text(&whole[..1], true)).fault, Some(Kind::NotUtf8));
    let pieces =
        [text(&whole[..1], false), encoded(OpCode::Data(Data::Continue), true, &whole[1..])].concat();
    assert_eq!(read(&pieces), Story { frames: vec![Frame::Text("é".into())], fault: None });
}

#[test]
fn nothing_is_held_between_two_messages() {
    let mut reader = Reader::default();
    reader.push(&encoded(OpCode::Data(Data::Text), true, &[b'x'; 2_000]));
    assert!(matches!(reader.next(MAX_BYTES), Ok(Some(Frame::Text(_)))));
    assert_eq!((reader.next(MAX_BYTES), reader.unread.capacity()), (Ok(None), 0));
}
