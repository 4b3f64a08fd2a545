//! Where words go: answers to standard output, all else to standard error. That words are lost
//! never ends work that is under way; that an answer is lost is a failure of its own, once the work
//! is done.

use std::{
    ffi::OsStr,
    io::{self, ErrorKind, Write},
    pin::Pin,
    process::ExitCode,
};

use aio_protocol::error_code::ErrorCode;
use clap::{Arg, Command, Parser};

use crate::failure::Failure;

/// A command under way. It is boxed so that its code is generated in this crate, once; a program that
/// awaits a plain future generates it again, which is 100 KB of the installer.
pub type Running<T> = Pin<Box<dyn Future<Output = T>>>;

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

/// Reads this process's command line and variables. Help and version that cannot be printed are no success.
pub fn parse<C: Parser>() -> Result<C, ExitCode> {
    let matches = without_empty_variables(C::command()).try_get_matches();
    matches.and_then(|matches| C::from_arg_matches(&matches)).map_err(|asked| {
        let printed = asked.print().and_then(|()| io::stdout().flush());
        if printed.is_err() && !asked.use_stderr() {
            return ErrorCode::FileFailed.exit_status().into();
        }
        u8::try_from(asked.exit_code()).unwrap_or(ErrorCode::Usage.exit_status()).into()
    })
}

/// `command` without those of its variables that are empty: an empty one is as good as none.
fn without_empty_variables(command: Command) -> Command {
    let is_empty =
        |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.to_string_lossy().trim().is_empty());
    let bare = |argument: Arg| match argument.get_env() {
        Some(name) if is_empty(name) => argument.env(None::<&'static str>),
        _ => argument,
    };
    command.mut_args(bare).mut_subcommands(without_empty_variables)
}
