//! `/rollouts`: what is rolled out, how far it is, and what somebody orders. What an order means is
//! `rollout`'s to say, and how it is kept `rollouts`'.

use std::{collections::BTreeMap, sync::Arc};

use aio_protocol::{
    api::ApiError, error_code::ErrorCode, ids::NodeId, release::ReleaseVersion, time::Timestamp,
    update::UpdateReport,
};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    audit::Asked,
    auth::{AsManager, AsUser, Person},
    body::{Body, OptionalBody},
    error::Rejection,
    fields::{PageNumber, PageSize, Pagination, Paging},
    path::InPath,
};
use crate::{
    app::App,
    clock,
    labels::Label,
    rollout::{Member, Order, Rollout, Settings, Share, Skip, Stage, State as RolloutState},
    rollouts::{self, Draft, OrderError},
    store::{ListedMember, Store},
};

/// Which rollout.
#[derive(IntoParams)]
#[into_params(names("rollout"), parameter_in = Path)]
#[expect(dead_code, reason = "it describes the path")]
pub(super) struct RolloutOfPath(Uuid);

/// What is to be rolled out. It begins when it is started.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewRollout {
    /// A version of the index of releases.
    version: ReleaseVersion,
    /// Only nodes with this label `group`; all of the organisation's when none.
    group: Option<Label>,
    /// How many nodes go first: 1% (1 to 5) unless something else is said.
    canaries: Option<Share>,
    /// 900 unless something else is said.
    soak_seconds: Option<u32>,
    /// Up to which part of the nodes each wave goes, in percent: 10, 30, 100 unless something else is said.
    #[schema(min_items = 1, max_items = 10)]
    waves: Option<Vec<u8>>,
    /// Between two waves: 600 unless something else is said.
    wave_pause_seconds: Option<u32>,
    /// How many nodes may switch at a time: 5% (1 to 50) unless something else is said.
    in_flight: Option<Share>,
    /// Within an hour, whatever the nodes' windows say.
    #[serde(default)]
    urgent: bool,
    /// Only say which nodes would go when, and who is left out and why.
    #[serde(default)]
    dry_run: bool,
}

impl NewRollout {
    fn draft(self) -> Draft {
        let usual = Settings::default();
        Draft {
            version: self.version,
            group: self.group.map(String::from),
            only: None,
            settings: Settings {
                canaries: self.canaries.unwrap_or(usual.canaries),
                soak_seconds: self.soak_seconds.unwrap_or(usual.soak_seconds),
                waves: self.waves.unwrap_or(usual.waves),
                wave_pause_seconds: self.wave_pause_seconds.unwrap_or(usual.wave_pause_seconds),
                in_flight: self.in_flight.unwrap_or(usual.in_flight),
                urgent: self.urgent,
            },
        }
    }
}

/// A rollout.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Rollout)]
pub(crate) struct RolloutView {
    pub id: Uuid,
    pub version: ReleaseVersion,
    /// `null` when it is to all nodes of the organisation.
    pub group: Option<String>,
    /// The node, where it is to one alone.
    pub node_id: Option<NodeId>,
    pub settings: Settings,
    /// `draft`, `canary`, `soaking`, `rolling`, `finishing`, `completed`, `paused`, `halted`,
    /// `reverting`, `aborted` or `superseded`.
    pub state: String,
    /// What more there is to say of the state: its wave, its end, who paused it, why it halted.
    #[schema(value_type = Object)]
    pub detail: RolloutState,
    pub created_at: Timestamp,
    pub created_by: String,
    pub started_at: Option<Timestamp>,
    pub canaries: u32,
    /// How many nodes may switch at a time.
    pub in_flight: u32,
    /// Its nodes by how they stand; a stage that none has is 0.
    pub nodes: BTreeMap<&'static str, u32>,
}

impl From<Rollout> for RolloutView {
    fn from(it: Rollout) -> Self {
        let count = |stage: Stage| (stage.as_str(), it.tally.of(stage));
        Self {
            nodes: Stage::ALL.into_iter().map(count).collect(),
            id: it.id,
            version: it.version,
            group: it.group,
            node_id: it.only,
            settings: it.settings,
            state: it.state.as_str().to_owned(),
            detail: it.state,
            created_at: it.created_at,
            created_by: it.actor,
            started_at: it.started_at,
            canaries: it.canaries,
            in_flight: it.in_flight,
        }
    }
}

/// A node in a rollout.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RolloutNode {
    pub node_id: NodeId,
    /// `null` in a plan.
    pub name: Option<String>,
    /// 0 for the canaries.
    pub wave: u8,
    pub stage: Stage,
    /// Why it is left out.
    pub skipped: Option<Skip>,
    /// Why it is left out, why it waits, or what went wrong.
    pub reason: Option<String>,
    /// The code of the failure.
    pub code: Option<String>,
    /// The version that it runs; `null` in a plan.
    pub daemon_version: Option<String>,
    pub update_id: Option<Uuid>,
    /// The version that it was offered: the rollout's, or one on the way there.
    pub offered: Option<ReleaseVersion>,
    /// What its worker said last of updates; `null` in a plan.
    pub update: Option<UpdateReport>,
}

impl From<Member> for RolloutNode {
    fn from(it: Member) -> Self {
        let reason = it.note.skip.map(|skip| skip.reason().to_owned());
        Self {
            node_id: it.node,
            name: None,
            wave: it.wave,
            stage: it.stage,
            skipped: it.note.skip,
            reason: reason.or(it.note.message),
            code: it.note.code,
            daemon_version: None,
            update_id: it.note.offer.as_ref().map(|offer| offer.update_id),
            offered: it.note.offer.map(|offer| offer.version),
            update: None,
        }
    }
}

impl From<ListedMember> for RolloutNode {
    fn from(it: ListedMember) -> Self {
        Self { name: Some(it.name), daemon_version: it.version, update: Some(it.report), ..it.member.into() }
    }
}

/// Who would go when.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RolloutPlan {
    pub canaries: u32,
    /// In their order; those that are left out stand at the end.
    pub nodes: Vec<RolloutNode>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Created {
    Plan(RolloutPlan),
    Rollout(Box<RolloutView>),
}

pub(super) fn asked_by(app: &App, person: &Person) -> rollouts::Asked {
    rollouts::Asked {
        org: person.org_id.clone(),
        actor: person.actor(),
        at: clock::now(),
        releases: app.enroller.deployment.releases.clone(),
    }
}

/// Create a rollout
///
/// It is a draft until it is started. With `dryRun` nothing is kept, and the answer says which nodes would go
/// when.
#[utoipa::path(post, path = "/rollouts", operation_id = "createRollout", tag = "rollouts", security(("user" = [])),
    request_body = NewRollout, responses(
        (status = 200, description = "The plan, with `dryRun`", body = RolloutPlan),
        (status = 201, description = "The rollout", body = RolloutView),
        (status = 404, description = "RELEASE_NOT_FOUND: the index of releases does not name the version", body = ApiError),
        (status = 409, description = "UPDATE_BELOW_FLOOR, INDEX_EXPIRED or INDEX_INVALID", body = ApiError)))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    Body(new): Body<NewRollout>,
) -> Result<(StatusCode, Json<Created>), Rejection> {
    let (by, dry_run) = (asked_by(&app, &person), new.dry_run);
    let draft = new.draft();
    if dry_run {
        let plan = rollouts::dry_run(&app.store, draft, &by).await?;
        let nodes = plan.members.into_iter().map(RolloutNode::from).collect();
        return Ok((StatusCode::OK, Json(Created::Plan(RolloutPlan { canaries: plan.canaries, nodes }))));
    }
    let asked = Asked {
        action: "rollout.create",
        node: None,
        target: Some(draft.version.to_string()),
        detail: Some(json!({ "group": draft.group, "settings": draft.settings })),
    };
    let work = async |store: Store| {
        let rollout = rollouts::create(&store, draft, &by).await?;
        Ok((StatusCode::CREATED, Json(Created::Rollout(Box::new(rollout.into())))))
    };
    person.audited(&app, asked, work).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Pages {
    #[param(inline)]
    page: Option<PageNumber>,
    #[param(inline)]
    limit: Option<PageSize>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct RolloutList {
    data: Vec<RolloutView>,
    pagination: Pagination,
}

/// List the organisation's rollouts
///
/// Newest first.
#[utoipa::path(get, path = "/rollouts", operation_id = "listRollouts", tag = "rollouts", security(("user" = [])),
    params(Pages), responses((status = 200, description = "A page of rollouts", body = RolloutList)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    pages: Result<Query<Pages>, QueryRejection>,
) -> Result<Json<RolloutList>, Rejection> {
    let Query(Pages { page, limit }) = pages?;
    let paging = Paging::new(page, limit);
    let (found, total) = app.store.rollouts(&user.org_id, paging.window()).await?;
    let data = found.into_iter().map(RolloutView::from).collect();
    Ok(Json(RolloutList { data, pagination: paging.of(total) }))
}

/// Show a rollout
#[utoipa::path(get, path = "/rollouts/{rollout}", operation_id = "showRollout", tag = "rollouts", security(("user" = [])),
    params(RolloutOfPath), responses(
        (status = 200, description = "The rollout", body = RolloutView),
        (status = 404, description = "NOT_FOUND", body = ApiError)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    InPath(id): InPath<Uuid>,
) -> Result<Json<RolloutView>, Rejection> {
    Ok(Json(rollout_of(&app, &user.org_id, id).await?.into()))
}

async fn rollout_of(app: &App, org: &aio_protocol::ids::OwnerId, id: Uuid) -> Result<Rollout, Rejection> {
    let found = app.store.rollout(id).await?.filter(|rollout| rollout.org == *org);
    found.ok_or_else(|| OrderError::NotFound(id).into())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichNodes {
    #[param(inline)]
    page: Option<PageNumber>,
    #[param(inline)]
    limit: Option<PageSize>,
    /// Only those that stand so.
    #[param(inline)]
    stage: Option<Stage>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct RolloutNodeList {
    data: Vec<RolloutNode>,
    pagination: Pagination,
}

/// List a rollout's nodes
///
/// In their order: the canaries first. A draft has none.
#[utoipa::path(get, path = "/rollouts/{rollout}/nodes", operation_id = "listRolloutNodes", tag = "rollouts", security(("user" = [])),
    params(RolloutOfPath, WhichNodes), responses(
        (status = 200, description = "A page of nodes", body = RolloutNodeList),
        (status = 404, description = "NOT_FOUND", body = ApiError)))]
pub(super) async fn nodes(
    State(app): State<Arc<App>>,
    AsUser(user): AsUser,
    InPath(id): InPath<Uuid>,
    which: Result<Query<WhichNodes>, QueryRejection>,
) -> Result<Json<RolloutNodeList>, Rejection> {
    let Query(WhichNodes { page, limit, stage }) = which?;
    rollout_of(&app, &user.org_id, id).await?;
    let paging = Paging::new(page, limit);
    let (found, total) = app.store.listed_members(id, stage, paging.window()).await?;
    let data = found.into_iter().map(RolloutNode::from).collect();
    Ok(Json(RolloutNodeList { data, pagination: paging.of(total) }))
}

/// How an order is meant.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderOptions {
    /// With `abort`: its nodes go back to the versions before, in waves.
    #[serde(default)]
    revert: bool,
}

/// Which rollout, and what is ordered.
#[derive(IntoParams)]
#[into_params(names("rollout", "order"), parameter_in = Path)]
#[expect(dead_code, reason = "it describes the path")]
pub(super) struct OrderOfPath(Uuid, #[param(inline)] Order);

/// Start, pause, resume, promote or abort a rollout
///
/// `resume` also takes what has failed until now as known. `promote` waits for neither the canaries'
/// time nor the next wave's.
/// `abort` takes offers back; a node that switches goes on.
#[utoipa::path(post, path = "/rollouts/{rollout}/{order}", operation_id = "orderRollout", tag = "rollouts", security(("user" = [])),
    params(OrderOfPath), request_body = Option<OrderOptions>, responses(
        (status = 200, description = "The rollout", body = RolloutView),
        (status = 404, description = "NOT_FOUND", body = ApiError),
        (status = 409, description = "TRANSITION_REFUSED: the rollout's state does not take it, ROLLOUT_CONFLICT or INDEX_INVALID", body = ApiError)))]
pub(super) async fn order(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    InPath((id, order)): InPath<(Uuid, Order)>,
    OptionalBody(OrderOptions { revert }): OptionalBody<OrderOptions>,
) -> Result<Json<RolloutView>, Rejection> {
    if revert && order != Order::Abort {
        return Err(Rejection::field("revert: only `abort` takes it"));
    }
    let by = asked_by(&app, &person);
    let asked = Asked {
        action: order.action(),
        node: None,
        target: Some(id.to_string()),
        detail: revert.then(|| json!({ "revert": true })),
    };
    let work = async |store: Store| Ok(Json(rollouts::order(&store, id, order, revert, &by).await?.into()));
    person.audited(&app, asked, work).await
}

impl From<OrderError> for Rejection {
    fn from(error: OrderError) -> Self {
        let conflict = |code: ErrorCode| Self::new(StatusCode::CONFLICT, code, error.to_string());
        match error {
            OrderError::Store(error) => error.into(),
            OrderError::Invalid(message) => Self::field(message),
            OrderError::NotFound(_) | OrderError::NotPublished(_) => {
                Self::new(StatusCode::NOT_FOUND, error.code(), error.to_string())
            }
            OrderError::NoIndex(ref none) if none.code() == ErrorCode::FileFailed => Self::fault(&error),
            OrderError::NoIndex(_)
            | OrderError::BelowFloor { .. }
            | OrderError::Expired(_)
            | OrderError::Refused(_)
            | OrderError::Conflict(_) => conflict(error.code()),
            OrderError::Contended(_) => Self::fault(&error),
        }
    }
}
