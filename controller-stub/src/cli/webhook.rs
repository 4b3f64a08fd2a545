//! `controller-stub webhook`: where an organisation is told of its events, beside NOTI.

use clap::{Args, Subcommand};
use serde::Serialize;
use toml::Table;
use uuid::Uuid;

use super::{Failure, Output, Place, Whose, config, print};
use crate::{
    api::webhooks::{AttemptView, WebhookView, WebhookWithSecret},
    commands::{self, WebhookOrder},
    webhooks::changes::Wanted,
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Have events posted to a URL, and print the webhook's id and secret.
    Add(Add),
    /// Print the organisation's webhooks.
    List(Common),
    /// Remove a webhook, with its log and all that it was still owed.
    Remove(Named),
    /// Give a webhook another secret, and print it. The one before signs, too, for a day.
    Rotate(Named),
    /// Post a test to a webhook from this machine, once, and print what came of it.
    Test(Named),
    /// Print the latest attempts at a webhook, the latest first.
    Attempts(Named),
    /// Deliver what a webhook was not told of again.
    Replay(Named),
}

#[derive(Args)]
pub(super) struct Common {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    whose: Whose,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(super) struct Add {
    /// Where events are posted: https:// and a public address, or one of WEBHOOK_NETWORKS.
    #[arg(value_name = "URL")]
    url: String,
    /// A type of event that it is told of; may be given several times. [default: all]
    #[arg(long, value_name = "TYPE")]
    event: Vec<String>,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(super) struct Named {
    /// The webhook.
    #[arg(value_name = "ID")]
    webhook: Uuid,
    #[command(flatten)]
    common: Common,
}

pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Add(Add { url, event, description, common: Common { place, whose, output } }) => {
            let wanted = Wanted { url: Some(url), description, kinds: Some(event) };
            let config = config(&place, &Table::new())?;
            show_secret(&commands::add_webhook(&config, whose.into(), wanted).await?, output)
        }
        Command::List(Common { place, whose, output }) => {
            for webhook in commands::list_webhooks(&config(&place, &Table::new())?, whose.into()).await? {
                show(&webhook, output)?;
            }
            Ok(())
        }
        Command::Rotate(Named { webhook, common: Common { place, whose, output } }) => {
            let config = config(&place, &Table::new())?;
            show_secret(&commands::rotate_webhook(&config, whose.into(), webhook).await?, output)
        }
        Command::Test(Named { webhook, common: Common { place, whose, output } }) => {
            let config = config(&place, &Table::new())?;
            show_attempt(&commands::test_webhook(&config, whose.into(), webhook).await?, output)
        }
        Command::Attempts(Named { webhook, common: Common { place, whose, output } }) => {
            let config = config(&place, &Table::new())?;
            for attempt in commands::webhook_attempts(&config, whose.into(), webhook).await? {
                show_attempt(&attempt, output)?;
            }
            Ok(())
        }
        Command::Remove(Named { webhook, common: Common { place, whose, .. } }) => {
            let config = config(&place, &Table::new())?;
            commands::order_webhook(&config, whose.into(), WebhookOrder::Remove(webhook)).await?;
            print(&format!("the webhook {webhook} is removed"))
        }
        Command::Replay(Named { webhook, common: Common { place, whose, .. } }) => {
            let config = config(&place, &Table::new())?;
            let order = WebhookOrder::Replay(webhook);
            let replayed = commands::order_webhook(&config, whose.into(), order).await?;
            print(&format!("{replayed} events are delivered again by a server that runs"))
        }
    }
}

fn json(value: &impl Serialize) -> Result<(), Failure> {
    print(&serde_json::to_string(value).unwrap_or_default())
}

fn show(webhook: &WebhookView, output: Output) -> Result<(), Failure> {
    if output == Output::Json {
        return json(webhook);
    }
    let WebhookView { id, url, waiting, dead, description, .. } = webhook;
    let kinds = if webhook.event_types.is_empty() { "all".to_owned() } else { webhook.event_types.join(",") };
    print(format!("{id}  {url}  {kinds}  {waiting} wait, {dead} were given up  {description}").trim_end())
}

fn show_secret(webhook: &WebhookWithSecret, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => json(webhook),
        Output::Text => print(&format!("{}  {}", webhook.webhook.id, webhook.secret)),
    }
}

fn show_attempt(attempt: &AttemptView, output: Output) -> Result<(), Failure> {
    if output == Output::Json {
        return json(attempt);
    }
    let AttemptView { event_id, kind, at, millis, outcome, answer } = attempt;
    print(&format!("{at}  {event_id}  {kind}  {outcome}  {answer}, in {millis} ms"))
}
