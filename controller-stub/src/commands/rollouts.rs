//! Rollouts and pins, behind the back of a server that may run: it carries out what it finds. Nodes are
//! updated by a server alone.

use aio_protocol::release::ReleaseVersion;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{COMMAND_LINE, CommandError, DEPLOYMENT, For, nodes::find, on_command_line, open};
use crate::{
    api::rollouts::{RolloutNode, RolloutPlan, RolloutView},
    clock,
    config::Config,
    deployment::Deployment,
    rollout::Order,
    rollouts::{self, Asked, Draft},
    store::{Store, Window},
};

/// So many nodes are read at a time.
const PAGE: u64 = 500;

/// The newest rollouts that a list shows.
const MAX_LISTED: u64 = 100;

/// What a command that changes something needs at hand.
struct Place {
    store: Store,
    asked: Asked,
}

async fn place(config: &Config, whose: For) -> Result<Place, CommandError> {
    let store = open(config).await?;
    let org = whose.or_default(&store).await?.org_id;
    let kept =
        store.setting(DEPLOYMENT).await?.map(|text| serde_json::from_str::<Deployment>(&text)).transpose()?;
    let releases = config.releases.clone().or(kept.and_then(|it| it.releases));
    Ok(Place { store, asked: Asked { org, actor: COMMAND_LINE.to_owned(), at: clock::now(), releases } })
}

impl Place {
    fn recording(&self, action: &'static str, detail: Value) -> Store {
        on_command_line(&self.store, &self.asked.org, action, None, Some(detail))
    }
}

/// Who would go when.
pub(crate) async fn plan_rollout(
    config: &Config,
    whose: For,
    draft: Draft,
) -> Result<RolloutPlan, CommandError> {
    let Place { store, asked } = place(config, whose).await?;
    let plan = rollouts::dry_run(&store, draft, &asked).await?;
    let mut nodes = Vec::new();
    for member in plan.members {
        let name = store.node(&member.node).await?.map(|node| node.name);
        nodes.push(RolloutNode { name, ..member.into() });
    }
    Ok(RolloutPlan { canaries: plan.canaries, nodes })
}

/// Keeps a rollout, and starts it unless it is to stay a draft.
pub(crate) async fn create_rollout(
    config: &Config,
    whose: For,
    draft: Draft,
    start: bool,
) -> Result<RolloutView, CommandError> {
    let place = place(config, whose).await?;
    let detail = json!({ "version": draft.version, "group": draft.group, "settings": draft.settings });
    let store = place.recording("rollout.create", detail);
    let rollout = rollouts::create(&store, draft, &place.asked).await?;
    if !start {
        return Ok(rollout.into());
    }
    let store = place.recording(Order::Start.action(), json!({ "rollout": rollout.id }));
    Ok(rollouts::order(&store, rollout.id, Order::Start, false, &place.asked).await?.into())
}

/// Keeps and starts a rollout, unless there has been one of its version to its group: whoever ended that
/// one does not want another.
pub(crate) async fn create_first_rollout(
    config: &Config,
    whose: For,
    draft: Draft,
) -> Result<Option<RolloutView>, CommandError> {
    let known = list_rollouts(config, whose.clone()).await?;
    if known.iter().any(|rollout| rollout.version == draft.version && rollout.group == draft.group) {
        return Ok(None);
    }
    create_rollout(config, whose, draft, true).await.map(Some)
}

/// The newest rollouts.
pub(crate) async fn list_rollouts(config: &Config, whose: For) -> Result<Vec<RolloutView>, CommandError> {
    let Place { store, asked } = place(config, whose).await?;
    let (found, _) = store.rollouts(&asked.org, Window { offset: 0, limit: MAX_LISTED }).await?;
    Ok(found.into_iter().map(RolloutView::from).collect())
}

/// A rollout, the newest when none is named.
pub(crate) async fn show_rollout(
    config: &Config,
    whose: For,
    id: Option<Uuid>,
) -> Result<RolloutView, CommandError> {
    let Place { store, asked } = place(config, whose).await?;
    let found = match id {
        Some(id) => store.rollout(id).await?.filter(|rollout| rollout.org == asked.org),
        None => store.rollouts(&asked.org, Window { offset: 0, limit: 1 }).await?.0.pop(),
    };
    found.map(RolloutView::from).ok_or(CommandError::NoRollout(id))
}

/// A rollout's nodes, in their order.
pub(crate) async fn rollout_nodes(config: &Config, id: Uuid) -> Result<Vec<RolloutNode>, CommandError> {
    let store = open(config).await?;
    let mut nodes = Vec::new();
    loop {
        let window = Window { offset: nodes.len() as u64, limit: PAGE };
        let (page, total) = store.listed_members(id, None, window).await?;
        let last = page.is_empty();
        nodes.extend(page.into_iter().map(RolloutNode::from));
        if last || nodes.len() as u64 >= total {
            return Ok(nodes);
        }
    }
}

/// Takes an order to a rollout, the newest when none is named.
pub(crate) async fn order_rollout(
    config: &Config,
    whose: For,
    id: Option<Uuid>,
    order: Order,
    revert: bool,
) -> Result<RolloutView, CommandError> {
    let id = match id {
        Some(id) => id,
        None => show_rollout(config, whose.clone(), None).await?.id,
    };
    let place = place(config, whose).await?;
    let store = place.recording(order.action(), json!({ "rollout": id, "revert": revert }));
    Ok(rollouts::order(&store, id, order, revert, &place.asked).await?.into())
}

/// Keeps a node at a version, or at none. Says its id.
pub(crate) async fn pin_node(
    config: &Config,
    whose: For,
    named: &str,
    pin: Option<&ReleaseVersion>,
) -> Result<String, CommandError> {
    let Place { store, asked } = place(config, whose).await?;
    let node = find(&store, &asked.org, named).await?;
    if let Some(pin) = pin {
        rollouts::check_pin(pin, &asked).await?;
    }
    let action = if pin.is_some() { "node.pin" } else { "node.unpin" };
    let detail = Some(json!({ "version": pin }));
    let store = on_command_line(&store, &node.owner.org_id, action, Some(&node.id), detail);
    store.pin_node(&node.id, pin).await?;
    Ok(node.id.to_string())
}

/// Brings one node to a version now.
pub(crate) async fn update_node(
    config: &Config,
    whose: For,
    named: &str,
    version: Option<ReleaseVersion>,
) -> Result<RolloutView, CommandError> {
    let Place { store, asked } = place(config, whose).await?;
    let node = find(&store, &asked.org, named).await?;
    let detail = Some(json!({ "version": version }));
    let store = on_command_line(&store, &node.owner.org_id, "node.roll_out", Some(&node.id), detail);
    let asked = Asked { org: node.owner.org_id.clone(), ..asked };
    Ok(rollouts::update_node(&store, &node.id, version, &asked).await?.into())
}
