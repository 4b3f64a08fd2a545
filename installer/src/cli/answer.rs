//! Where words go: answers to standard output, all else to standard error. That words are lost
//! never ends work that is under way; that an answer is lost is a failure of its own, once the work
//! is done.

use std::{
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

use aio_protocol::error_code::ErrorCode;
use clap::Parser;

use super::arguments::without_empty_variables;
use crate::failure::Failure;

/// Prints an answer, or a part of one, to standard output.
pub fn print(text: &str) -> Result<(), Failure> {
    write(text).map_err(lost)
}

/// Prints a part of an answer that goes on, and says whether somebody still reads it: who does not
/// has had enough.
pub fn print_part(text: &str) -> Result<bool, Failure> {
    match write(text) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(lost(error)),
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn lost(error: io::Error) -> Failure {
    let message = format!("what was asked is done, and standard output does not take the answer: {error}");
    Failure::new(ErrorCode::FileFailed, message)
}

/// Reads this process's command line. Help and version that cannot be printed are no success.
pub fn parse<C: Parser>() -> Result<C, ExitCode> {
    let command = without_empty_variables(C::command());
    let parsed = command.try_get_matches().and_then(|matches| C::from_arg_matches(&matches));
    parsed.map_err(|asked| {
        let printed = asked.print().and_then(|()| io::stdout().flush());
        if printed.is_err() && !asked.use_stderr() {
            return ErrorCode::FileFailed.exit_status().into();
        }
        u8::try_from(asked.exit_code()).unwrap_or(ErrorCode::Usage.exit_status()).into()
    })
}
