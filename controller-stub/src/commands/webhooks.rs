//! Webhooks of an organisation, from the command line. A server that runs hears of a change within a second.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{COMMAND_LINE, CommandError, For, on_command_line, open};
use crate::{
    api::webhooks::{AttemptView, WebhookView, WebhookWithSecret},
    clock,
    config::Config,
    store::{Owed, Store, Webhook},
    webhooks::{
        changes::{self, Refusal, Wanted},
        guard::Guard,
    },
};

/// The latest attempts that a list shows.
const MAX_ATTEMPTS: u64 = 100;

/// What is done with a webhook that is there.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WebhookOrder {
    Remove(Uuid),
    Replay(Uuid),
}

/// An organisation's webhooks.
pub(crate) async fn list_webhooks(config: &Config, whose: For) -> Result<Vec<WebhookView>, CommandError> {
    let store = open(config).await?;
    let org = whose.or_default(&store).await?.org_id;
    let owed = store.owed_to_webhooks(Some(&org)).await?;
    let view = |webhook: &Webhook| {
        let owed = owed.iter().find(|(id, ..)| *id == webhook.id).map(|(.., owed)| *owed);
        WebhookView::of(webhook, None, owed.unwrap_or_default())
    };
    Ok(store.webhooks(Some(&org)).await?.iter().map(view).collect())
}

/// Makes a webhook.
pub(crate) async fn add_webhook(
    config: &Config,
    whose: For,
    wanted: Wanted,
) -> Result<WebhookWithSecret, CommandError> {
    let store = open(config).await?;
    let org = whose.or_default(&store).await?.org_id;
    let host = wanted.url.as_deref().and_then(changes::host);
    let recorded = on_command_line(&store, &org, "webhook.add", None, Some(json!({ "host": host })));
    let guard = Guard::new(config.webhook_networks.clone());
    let webhook = changes::add(&recorded, &guard, &org, wanted, COMMAND_LINE.to_owned()).await?;
    Ok(with_secret(&webhook))
}

/// Gives a webhook another secret.
pub(crate) async fn rotate_webhook(
    config: &Config,
    whose: For,
    id: Uuid,
) -> Result<WebhookWithSecret, CommandError> {
    let (store, org) = recorded(config, whose, "webhook.rotate", id).await?;
    Ok(with_secret(&changes::rotate(&store, &org, id).await?))
}

/// Posts a test to a webhook from this machine, and says what came of it.
pub(crate) async fn test_webhook(config: &Config, whose: For, id: Uuid) -> Result<AttemptView, CommandError> {
    let (store, org) = recorded(config, whose, "webhook.test", id).await?;
    let guard = Guard::new(config.webhook_networks.clone());
    Ok(changes::test(&store, &guard, &org, id).await?.into())
}

/// The latest attempts at a webhook.
pub(crate) async fn webhook_attempts(
    config: &Config,
    whose: For,
    id: Uuid,
) -> Result<Vec<AttemptView>, CommandError> {
    let store = open(config).await?;
    let org = whose.or_default(&store).await?.org_id;
    changes::find(&store, &org, id).await?;
    Ok(store.webhook_attempts(id, MAX_ATTEMPTS).await?.into_iter().map(Into::into).collect())
}

/// Carries an order out, and says how many events it concerns.
pub(crate) async fn order_webhook(
    config: &Config,
    whose: For,
    order: WebhookOrder,
) -> Result<u64, CommandError> {
    match order {
        WebhookOrder::Remove(id) => {
            let (store, org) = recorded(config, whose, "webhook.remove", id).await?;
            let there = store.remove_webhook(&org, id).await?;
            if there { Ok(0) } else { Err(Refusal::NoSuch(id).into()) }
        }
        WebhookOrder::Replay(id) => {
            let (store, org) = recorded(config, whose, "webhook.replay", id).await?;
            changes::find(&store, &org, id).await?;
            Ok(store.replay_to_webhook(id, clock::now()).await?)
        }
    }
}

async fn recorded(
    config: &Config,
    whose: For,
    action: &'static str,
    id: Uuid,
) -> Result<(Store, aio_protocol::ids::OwnerId), CommandError> {
    let store = open(config).await?;
    let org = whose.or_default(&store).await?.org_id;
    let detail: Value = json!({ "webhook": id });
    Ok((on_command_line(&store, &org, action, None, Some(detail)), org))
}

fn with_secret(webhook: &Webhook) -> WebhookWithSecret {
    let secret = changes::shown(webhook);
    WebhookWithSecret { webhook: WebhookView::of(webhook, None, Owed::default()), secret }
}
