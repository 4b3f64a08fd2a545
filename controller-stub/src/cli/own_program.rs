//! `controller-stub self-update`: another version in place of this program.

use aio_protocol::release::ReleaseVersion;
use clap::Args;

use super::{Failure, print, releases::SourceFlags};
use crate::commands::{self, Updated};

#[derive(Args)]
pub(super) struct SelfUpdate {
    #[command(flatten)]
    source: SourceFlags,
    /// This version, and not the newest.
    #[arg(long, value_name = "VERSION")]
    version: Option<ReleaseVersion>,
    /// A key that it may be signed with, the second line of its .pub file; may be given several times.
    /// [default: the one that this program was built with]
    #[arg(long, value_name = "KEY", env = "RELEASE_PUBLIC_KEY", value_delimiter = ',')]
    release_key: Vec<String>,
    /// Take an older version, too.
    #[arg(long)]
    allow_downgrade: bool,
}

pub(super) async fn run(args: SelfUpdate) -> Result<(), Failure> {
    let update = commands::SelfUpdate {
        from: args.source.into(),
        keys: args
            .release_key
            .iter()
            .map(|key| key.trim().to_owned())
            .filter(|key| !key.is_empty())
            .collect(),
        version: args.version,
        allow_downgrade: args.allow_downgrade,
    };
    match commands::self_update(&update).await? {
        Updated::AlreadyThere(version) => print(&format!("{version} is there already")),
        Updated::Replaced { version, previous } => print(&format!(
            "this program is {version} from its next start on; the one before is {}",
            previous.display()
        )),
    }
}
