//! `controller-stub login` and `logout`: links that sign in to the pages, and the end of sessions.

use clap::Args;
use toml::Table;

use super::{Failure, Place, Whose, config, print};
use crate::commands;

/// A session lasts this long unless --expires-in says otherwise: 12 hours.
const SESSION_SECS: u64 = 12 * 3600;

/// A link waits this long unless --valid-for says otherwise.
const LINK_SECS: u64 = 600;

#[derive(Args)]
pub(super) struct Login {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    whose: Whose,
    /// What the user may do; may be given several times.
    #[arg(long, value_name = "ROLE", default_value = "organization.owner")]
    role: Vec<String>,
    /// For how many seconds whoever uses the link is signed in.
    #[arg(long, value_name = "SECONDS", default_value_t = SESSION_SECS, value_parser = clap::value_parser!(u64).range(60..=2_592_000))]
    expires_in: u64,
    /// For how many seconds the link waits to be used.
    #[arg(long, value_name = "SECONDS", default_value_t = LINK_SECS, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    valid_for: u64,
}

#[derive(Args)]
pub(super) struct Logout {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    whose: Whose,
    /// Everybody of the organisation, not one user alone.
    #[arg(long, conflicts_with = "user")]
    all: bool,
}

pub(super) async fn login(args: Login) -> Result<(), Failure> {
    let config = config(&args.place, &Table::new())?;
    let Login { whose, role, expires_in, valid_for, .. } = args;
    print(&commands::login_link(&config, whose.into(), role, expires_in, valid_for).await?)
}

pub(super) async fn logout(args: Logout) -> Result<(), Failure> {
    let config = config(&args.place, &Table::new())?;
    let ended = commands::end_sessions(&config, args.whose.into(), args.all).await?;
    print(&format!("{ended} sessions ended"))
}
