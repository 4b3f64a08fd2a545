//! `aio-worker credentials set`: another secret for a node of AIWM, after somebody has regenerated it
//! there. What is kept where is the installer's library's; this asks, restarts the service, and answers.

use std::path::PathBuf;

use aio_host::{
    layout::{Layout, UNIT},
    systemd::Systemd,
    token,
};
use aio_installer::{
    bootstrap::{Way, set_secret},
    cli::{Failure, Output, print},
};
use aio_protocol::error_code::ErrorCode;
use serde_json::json;

use super::answer::{Answer, print_json, runtime};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Keeps another secret of this node, once AIWM takes it, and restarts the service.
    Set(SetArguments),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The secret comes from standard input or a file, never from the command line, which other users can read. Where AIWM cannot be \
asked now, the secret is kept all the same.

Exit status: 0; 1 try again later; 74 a file could not be read or written; 77 not root; 78 AIWM does not take the secret, or this is no \
node of AIWM.

Example:
  sudo aio-worker credentials set < secret")]
struct SetArguments {
    /// A file that holds the secret; `-` is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    secret_file: PathBuf,
    #[command(flatten)]
    answer: Answer,
}

impl Arguments {
    pub(super) fn output(&self) -> Output {
        let Command::Set(arguments) = &self.command;
        arguments.answer.output
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Command::Set(arguments) = &arguments.command;
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(ErrorCode::NotRoot, "setting a node's secret needs root"));
    }
    let secret = if arguments.secret_file.as_os_str() == "-" {
        token::read(std::io::stdin().lock(), &arguments.secret_file)?
    } else {
        token::read_file(&arguments.secret_file)?
    };
    let (node, unasked, restarted) = runtime()?.block_on(async {
        let (node, unasked) = set_secret(&Layout::default(), &secret, &Way::default()).await?;
        Ok::<_, Failure>((node, unasked, restart().await))
    })?;
    match arguments.answer.output {
        Output::Json => print_json(&json!({
            "nodeId": node,
            "verified": unasked.is_none(),
            "restarted": restarted.is_ok(),
        })),
        Output::Text => {
            let mut words = format!("node {node} has another secret");
            if let Some(failure) = unasked {
                words.push_str(&format!("; AIWM could not be asked whether it takes it: {failure}"));
            }
            if let Err(failure) = restarted {
                words.push_str(&format!(
                    "; restart the service yourself (systemctl restart aio-worker): {failure}"
                ));
            }
            print(&(words + "\n"))
        }
    }
}

/// The daemon reads what systemd gave it when it started.
async fn restart() -> Result<(), Failure> {
    let systemd = Systemd::connect().await?;
    Ok(systemd.restart(UNIT).await?)
}
