//! `aio-worker version`.

use aio_installer::cli::{Failure, Output, print};
use aio_protocol::release::build;
use serde_json::json;

use super::answer::{Answer, print_json};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) answer: Answer,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match arguments.answer.output {
        Output::Json => {
            let mut answer = json!({ "version": build::number(), "platform": build::platform() });
            if let (Some(answer), Some(commit)) = (answer.as_object_mut(), build::commit()) {
                answer.insert("commit".to_owned(), commit.into());
            }
            print_json(&answer)
        }
        Output::Text => print(&format!("aio-worker {}\n", build::version())),
    }
}
