//! As much of HTTP/1.1 as a storm needs: messages with a length, on a connection that stays. A
//! client library would take as much of the processor as the controller that is measured.

use std::io::{self, BufRead, Error, ErrorKind};

/// A request or an answer.
#[derive(Debug)]
pub(super) struct Message {
    pub first_line: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Nothing here is larger.
const MAX_BODY_BYTES: usize = 1 << 20;

impl Message {
    /// Reads the next message; `None` when the other end has closed in good order.
    pub(super) fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut first_line = String::new();
        if from.read_line(&mut first_line)? == 0 {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut message = Self { first_line: first_line.trim_end().to_owned(), headers, body: Vec::new() };
        let length = message.header("content-length").map_or(Ok(0), str::parse).map_err(Error::other)?;
        if length > MAX_BODY_BYTES {
            return Err(ErrorKind::FileTooLarge.into());
        }
        message.body.resize(length, 0);
        from.read_exact(&mut message.body)?;
        Ok(Some(message))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// The status of an answer.
    pub(super) fn status(&self) -> io::Result<u16> {
        let code = self.first_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        code.ok_or_else(|| Error::other(format!("{:?} is no answer", self.first_line)))
    }
}
