//! `aio-worker completions`: what a shell needs to complete this command line, made of the command
//! line itself.

use aio_installer::cli::{Failure, print};
use clap::Command;
use clap_complete::{Shell, generate};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Where bash looks: /usr/share/bash-completion/completions/aio-worker; zsh: _aio-worker in a folder of $fpath; fish: \
~/.config/fish/completions/aio-worker.fish.

Example:
  source <(aio-worker completions bash)")]
pub(super) struct Arguments {
    /// For which shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, mut command: Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(arguments.shell, &mut command, "aio-worker", &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if arguments.shell == Shell::Bash {
        // clap_complete 4.6 spells a program's dash in two ways, and so finds none of its commands.
        script = script.replace("aio__subcmd__worker", "aio__worker");
    }
    print(&script)
}
