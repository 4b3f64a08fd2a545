//! What people ask of rollouts, over the API or on the command line: on the database alone, so that it works
//! whether a server runs or not. A server that runs sees it at its next look.

use std::{collections::BTreeMap, path::PathBuf};

use aio_protocol::{
    error_code::ErrorCode,
    ids::{NodeId, OwnerId},
    release::ReleaseVersion,
    time::Timestamp,
};
use uuid::Uuid;

use super::index::{NoIndex, newest_index};
use crate::{
    rollout::{
        Candidate, Group, Member, Order, Refusal, Rollout, Settings, Share, State, Tally, end, obey, plan,
        revert,
    },
    store::{Started, Store, StoreError},
};

/// A rollout may be saved by others so often between its reading and its saving here.
const TRIES: usize = 16;

/// Who asks, and of whose nodes.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub org: OwnerId,
    pub actor: String,
    pub at: Timestamp,
    /// The folder of the index.
    pub releases: Option<PathBuf>,
}

/// What somebody wants to roll out.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub version: ReleaseVersion,
    pub group: Option<String>,
    pub only: Option<NodeId>,
    pub settings: Settings,
}

/// Who would go when.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub canaries: u32,
    pub members: Vec<Member>,
}

/// Why something cannot be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    #[error("{0}")]
    Invalid(String),
    #[error("there is no rollout {0}")]
    NotFound(Uuid),
    #[error("{0} is not in the index of releases")]
    NotPublished(ReleaseVersion),
    #[error("{version} is below the floor {floor} of the index of releases")]
    BelowFloor { version: ReleaseVersion, floor: ReleaseVersion },
    #[error("the index of releases has expired at {0}")]
    Expired(Timestamp),
    #[error(transparent)]
    NoIndex(#[from] NoIndex),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the rollout {0} is under way for some of these nodes")]
    Conflict(Uuid),
    #[error("the rollout {0} was saved by others again and again")]
    Contended(Uuid),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OrderError {
    /// The catalogue's code.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(_) => ErrorCode::ValidationFailed,
            Self::NotFound(_) => ErrorCode::NotFound,
            Self::NotPublished(_) => ErrorCode::ReleaseNotFound,
            Self::BelowFloor { .. } => ErrorCode::UpdateBelowFloor,
            Self::Expired(_) => ErrorCode::IndexExpired,
            Self::NoIndex(none) => none.code(),
            Self::Refused(_) => ErrorCode::TransitionRefused,
            Self::Conflict(_) => ErrorCode::RolloutConflict,
            Self::Contended(_) => ErrorCode::ControllerError,
            Self::Store(error) => error.code(),
        }
    }
}

/// The rollout that a draft leads to, if its version is one that nodes can get.
async fn drafted(
    draft: Draft,
    asked: &Asked,
) -> Result<(Rollout, aio_protocol::release::index::ReleaseIndex), OrderError> {
    if let Some(problem) = draft.settings.problem() {
        return Err(OrderError::Invalid(problem.to_owned()));
    }
    let index = newest_index(asked.releases.clone()).await?;
    if let Some(floor) = index.floor.clone().filter(|floor| draft.version < *floor) {
        return Err(OrderError::BelowFloor { version: draft.version, floor });
    }
    if !index.releases.contains_key(&draft.version) {
        return Err(OrderError::NotPublished(draft.version));
    }
    if index.expired(asked.at) {
        return Err(OrderError::Expired(index.expires_at));
    }
    let rollout = Rollout {
        id: Uuid::now_v7(),
        org: asked.org.clone(),
        version: draft.version,
        group: draft.group,
        only: draft.only,
        settings: draft.settings,
        created_at: asked.at,
        actor: asked.actor.clone(),
        started_at: None,
        state: State::Draft,
        canaries: 0,
        in_flight: 1,
        tally: Tally::default(),
        pardoned: Default::default(),
        progressed_at: asked.at,
        revision: 0,
    };
    Ok((rollout, index))
}

/// Keeps a new rollout, which nobody has started.
pub(crate) async fn create(store: &Store, draft: Draft, asked: &Asked) -> Result<Rollout, OrderError> {
    let (rollout, _) = drafted(draft, asked).await?;
    store.add_rollout(&rollout).await?;
    Ok(rollout)
}

/// Who would go when, if it were started now. Changes nothing.
pub(crate) async fn dry_run(store: &Store, draft: Draft, asked: &Asked) -> Result<Planned, OrderError> {
    let (rollout, index) = drafted(draft, asked).await?;
    let candidates = candidates(store, &rollout).await?;
    let (canaries, members) = plan(&rollout, &candidates, &index);
    Ok(Planned { canaries, members })
}

async fn candidates(store: &Store, rollout: &Rollout) -> Result<Vec<Candidate>, StoreError> {
    store.candidates(&rollout.org, rollout.group.as_deref(), rollout.only.as_ref()).await
}

/// Takes an order to a rollout of this organisation. `store` acts for whoever asks.
pub(crate) async fn order(
    store: &Store,
    id: Uuid,
    order: Order,
    revert_too: bool,
    asked: &Asked,
) -> Result<Rollout, OrderError> {
    for _ in 0..TRIES {
        let rollout = store.rollout(id).await?.filter(|rollout| rollout.org == asked.org);
        let mut rollout = rollout.ok_or(OrderError::NotFound(id))?;
        if !obey(&mut rollout, order, revert_too, asked.at)? {
            return Ok(rollout);
        }
        let done = match order {
            Order::Start => start(store, &mut rollout, asked).await?,
            Order::Abort => abort(store, &mut rollout, revert_too, asked).await?,
            Order::Pause | Order::Resume | Order::Promote => {
                store.move_rollout(&rollout, &[], &BTreeMap::new(), Some(asked.at), None).await?
            }
        };
        if done {
            return Ok(rollout);
        }
    }
    Err(OrderError::Contended(id))
}

async fn start(store: &Store, rollout: &mut Rollout, asked: &Asked) -> Result<bool, OrderError> {
    let index = newest_index(asked.releases.clone()).await?;
    let candidates = candidates(store, rollout).await?;
    let (canaries, members) = plan(rollout, &candidates, &index);
    members.iter().for_each(|member| rollout.tally.add(member.wave, member.stage));
    let limit = match &rollout.group {
        Some(name) => store.group(&rollout.org, name).await?.in_flight,
        None => None,
    };
    let limit: Share = limit.unwrap_or(rollout.settings.in_flight);
    (rollout.canaries, rollout.in_flight) = (canaries, limit.in_flight(rollout.tally.members()));
    match store.start_rollout(rollout, &members, asked.at).await? {
        Started::Done => Ok(true),
        Started::Conflict(other) => Err(OrderError::Conflict(other)),
        Started::Outdated => Ok(false),
    }
}

async fn abort(
    store: &Store,
    rollout: &mut Rollout,
    revert_too: bool,
    asked: &Asked,
) -> Result<bool, OrderError> {
    let mut changed = Vec::new();
    for member in store.members(rollout.id).await? {
        let next = if revert_too { revert(&member) } else { end(&member) };
        if next != member {
            rollout.tally.remove(member.wave, member.stage);
            rollout.tally.add(next.wave, next.stage);
            changed.push(next);
        }
    }
    Ok(store.move_rollout(rollout, &changed, &BTreeMap::new(), Some(asked.at), None).await?)
}

/// Brings one node to a version now, whatever its group's rollout says: a rollout of its own, without
/// waiting.
pub(crate) async fn update_node(
    store: &Store,
    node: &NodeId,
    version: Option<ReleaseVersion>,
    asked: &Asked,
) -> Result<Rollout, OrderError> {
    let newest = async || {
        let index = newest_index(asked.releases.clone()).await?;
        let newest = index.releases.keys().next_back().cloned();
        newest.ok_or_else(|| OrderError::Invalid("version: the index of releases is empty".to_owned()))
    };
    let version = match version {
        Some(version) => version,
        None => newest().await?,
    };
    let settings = Settings {
        canaries: Share::Nodes(1),
        soak_seconds: 0,
        wave_pause_seconds: 0,
        waves: vec![100],
        urgent: true,
        ..Settings::default()
    };
    let draft = Draft { version, group: None, only: Some(node.clone()), settings };
    let (rollout, _) = drafted(draft, asked).await?;
    store.add_rollout(&rollout).await?;
    order(store, rollout.id, Order::Start, false, asked).await
}

/// Whether a pin may be set: what is below the floor would never be installed.
pub(crate) async fn check_pin(pin: &ReleaseVersion, asked: &Asked) -> Result<(), OrderError> {
    match newest_index(asked.releases.clone()).await {
        Ok(index) => match index.floor.filter(|floor| pin < floor) {
            Some(floor) => Err(OrderError::BelowFloor { version: pin.clone(), floor }),
            None => Ok(()),
        },
        // Without an index nothing is offered that a pin could keep away.
        Err(NoIndex::NoFolder | NoIndex::Absent(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Says what holds for a group, whose pin must be one that may be set.
pub(crate) async fn put_group(
    store: &Store,
    name: &str,
    group: &Group,
    asked: &Asked,
) -> Result<(), OrderError> {
    if let Some(pin) = &group.pin {
        check_pin(pin, asked).await?;
    }
    Ok(store.put_group(&asked.org, name, group).await?)
}
