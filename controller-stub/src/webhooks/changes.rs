//! What people do with webhooks, for the API and the command line alike.

use std::time::{Duration, Instant};

use aio_protocol::{event::EventKind, ids::OwnerId, text, time::Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use uuid::Uuid;

use super::{
    endpoint::{Endpoint, Unusable},
    guard::Guard,
};
use crate::{
    clock,
    noti::signature::SECRET_PREFIX,
    random::{self, NoRandomness},
    store::{Follows, Store, StoreError, Webhook, WebhookAttempt},
};

/// Maximum number of webhooks of an organisation.
pub(crate) const MAX_WEBHOOKS: u64 = 20;

/// How long the secret before signs, too.
const OVERLAP: Duration = Duration::from_secs(86_400);

/// The longest description, in characters.
const MAX_DESCRIPTION_CHARS: usize = 255;

/// The type of the message that a test posts.
pub(crate) const TEST_KIND: &str = "webhook.test";

/// What a webhook is to be; what is absent stays.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub url: Option<String>,
    pub description: Option<String>,
    pub kinds: Option<Vec<String>>,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The field and what is wrong with it.
    #[error("{0}")]
    Field(String),
    #[error("there is no webhook {0}")]
    NoSuch(Uuid),
    #[error("the organisation has {MAX_WEBHOOKS} webhooks, which is the maximum; remove one")]
    TooMany,
    #[error("{0}")]
    Unusable(#[from] Unusable),
    #[error(transparent)]
    Random(#[from] NoRandomness),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Wanted {
    fn apply(self, webhook: &mut Webhook, guard: &Guard) -> Result<(), Refusal> {
        if let Some(url) = self.url {
            guard.url(&url).map_err(|problem| Refusal::Field(format!("url: {problem}")))?;
            webhook.url = url;
        }
        if let Some(description) = self.description {
            if description.chars().count() > MAX_DESCRIPTION_CHARS {
                let problem = format!("description: must have at most {MAX_DESCRIPTION_CHARS} characters");
                return Err(Refusal::Field(problem));
            }
            webhook.description = text::clean(&description, MAX_DESCRIPTION_CHARS * char::MAX_LEN_UTF8);
        }
        if let Some(kinds) = self.kinds {
            let wanted: Vec<_> = kinds.iter().map(|name| kind(name)).collect::<Result<_, _>>()?;
            let kinds = EventKind::ALL.into_iter().filter(|kind| wanted.contains(kind));
            webhook.kinds = kinds.map(|kind| kind.as_str().to_owned()).collect();
        }
        Ok(())
    }
}

fn kind(name: &str) -> Result<EventKind, Refusal> {
    EventKind::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
        let all = EventKind::ALL.map(EventKind::as_str).join(", ");
        Refusal::Field(format!("eventTypes: `{}` is none of {all}", text::clean(name, 64)))
    })
}

fn new_secret() -> Result<SecretString, NoRandomness> {
    Ok(SecretString::from(format!("{SECRET_PREFIX}{}", random::secret()?)))
}

/// Makes a webhook of an organisation.
pub(crate) async fn add(
    store: &Store,
    guard: &Guard,
    org: &OwnerId,
    wanted: Wanted,
    by: String,
) -> Result<Webhook, Refusal> {
    if wanted.url.is_none() {
        return Err(Refusal::Field("url: must be there".to_owned()));
    }
    let mut webhook = Webhook {
        id: Uuid::now_v7(),
        org: org.clone(),
        url: String::new(),
        description: String::new(),
        kinds: Vec::new(),
        secret: new_secret()?,
        previous: None,
        created_at: clock::now(),
        created_by: by,
        revision: 1,
    };
    wanted.apply(&mut webhook, guard)?;
    if store.add_webhook(webhook.clone(), MAX_WEBHOOKS).await? { Ok(webhook) } else { Err(Refusal::TooMany) }
}

/// A webhook of an organisation.
pub(crate) async fn find(store: &Store, org: &OwnerId, id: Uuid) -> Result<Webhook, Refusal> {
    store.webhook(org, id).await?.ok_or(Refusal::NoSuch(id))
}

/// Changes a webhook of an organisation.
pub(crate) async fn change(
    store: &Store,
    org: &OwnerId,
    id: Uuid,
    mut alter: impl FnMut(&mut Webhook) -> Result<(), Refusal>,
) -> Result<Webhook, Refusal> {
    loop {
        let mut webhook = find(store, org, id).await?;
        alter(&mut webhook)?;
        // Somebody else's change comes first; a webhook that was removed meanwhile is not found again.
        if store.change_webhook(webhook.clone()).await? {
            return find(store, org, id).await;
        }
    }
}

/// Makes a webhook what it is wanted to be.
pub(crate) async fn alter(
    store: &Store,
    guard: &Guard,
    org: &OwnerId,
    id: Uuid,
    wanted: Wanted,
) -> Result<Webhook, Refusal> {
    let Wanted { url, description, kinds } = wanted;
    let again = || Wanted { url: url.clone(), description: description.clone(), kinds: kinds.clone() };
    change(store, org, id, |webhook| again().apply(webhook, guard)).await
}

/// Gives a webhook another secret. The one before signs, too, for a day.
pub(crate) async fn rotate(store: &Store, org: &OwnerId, id: Uuid) -> Result<Webhook, Refusal> {
    let secret = new_secret()?;
    let until = clock::now().plus(OVERLAP);
    change(store, org, id, |webhook| {
        let before = std::mem::replace(&mut webhook.secret, secret.clone());
        webhook.previous = Some((before, until));
        Ok(())
    })
    .await
}

/// Posts a message to a webhook that says that it is a test, and says what came of it.
pub(crate) async fn test(
    store: &Store,
    guard: &Guard,
    org: &OwnerId,
    id: Uuid,
) -> Result<WebhookAttempt, Refusal> {
    let webhook = find(store, org, id).await?;
    let endpoint = Endpoint::new(&webhook, guard, store.clone())?;
    let (now, began) = (clock::now(), Instant::now());
    let message = format!("msg_{}", Uuid::now_v7().simple());
    let body = json!({ "type": TEST_KIND, "timestamp": now, "data": { "webhookId": id } });
    let answer = endpoint.send(&message, body.to_string(), now).await;
    let took = began.elapsed();
    Ok(endpoint.write_down(&message, TEST_KIND, (now, took), &answer, Follows::Nothing).await?)
}

/// A webhook's secret, which is shown once.
pub(crate) fn shown(webhook: &Webhook) -> String {
    webhook.secret.expose_secret().to_owned()
}

/// The host of a webhook's URL, which may be told where the URL may not.
pub(crate) fn host(url: &str) -> Option<String> {
    url.parse::<reqwest::Url>().ok().and_then(|url| url.host_str().map(str::to_owned))
}

/// Until when the secret before signs, if it does at `now`.
pub(crate) fn overlap_until(webhook: &Webhook, now: Timestamp) -> Option<Timestamp> {
    webhook.previous.as_ref().map(|(_, until)| *until).filter(|until| now < *until)
}
