//! Links that sign in to the pages once, and the end of sessions.

use std::time::Duration;

use aio_protocol::ids::OwnerId;
use serde_json::json;

use super::{CommandError, DEPLOYMENT, For, on_command_line, open};
use crate::{
    clock,
    config::Config,
    deployment::Deployment,
    random,
    secrets::Secrets,
    store::{Ended, LoginLink},
    tokens::{Tokens, fingerprint},
};

/// Makes a link that signs in as a user with these roles, once, within `valid_secs`; the session lasts
/// `session_secs`.
pub async fn login_link(
    config: &Config,
    whose: For,
    roles: Vec<String>,
    session_secs: u64,
    valid_secs: u64,
) -> Result<String, CommandError> {
    // The server signs the session's token when the link is used; one that cannot is found out here.
    Tokens::new(Secrets::load(config)?.tokens).require_signing()?;
    let store = open(config).await?;
    let deployment: Deployment = match store.setting(DEPLOYMENT).await? {
        Some(text) => serde_json::from_str(&text)?,
        None => return Err(CommandError::NeverServed),
    };
    let owner = whose.or_default(&store).await?;
    let secret = random::word()?;
    let detail =
        json!({ "user": owner.user_id, "roles": roles, "expiresIn": session_secs, "validFor": valid_secs });
    let recorded = on_command_line(&store, &owner.org_id, "login_link.issue", None, Some(detail));
    let link = LoginLink {
        id: fingerprint(&secret),
        org: owner.org_id,
        user: owner.user_id,
        roles,
        session_secs,
        expires_at: clock::now().plus(Duration::from_secs(valid_secs)),
    };
    recorded.add_login_link(link).await?;
    store.close().await;
    Ok(format!("{}/ui/login/{secret}", deployment.api))
}

/// Ends a user's sessions, or everybody's of the organisation, and says how many there were. Links that were
/// not used go with them.
pub async fn end_sessions(config: &Config, whose: For, all: bool) -> Result<u64, CommandError> {
    let store = open(config).await?;
    let owner = whose.or_default(&store).await?;
    let user: Option<OwnerId> = (!all).then_some(owner.user_id);
    let detail = json!({ "user": user });
    let recorded = on_command_line(&store, &owner.org_id, "session.end", None, Some(detail));
    let ended = recorded.end_sessions(&owner.org_id, user.map_or(Ended::All, Ended::User)).await?;
    store.close().await;
    Ok(ended)
}
