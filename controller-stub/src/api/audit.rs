//! The audit trail: how what people ask for gets into it, and `GET /audit`, which shows it.

use std::sync::Arc;

use aio_protocol::{ids::NodeId, time::Timestamp};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderName, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{
    auth::{AsManager, Person},
    error::Rejection,
    fields::{Bounded, TimeOfQuery},
};
use crate::{
    app::App,
    clock,
    store::{AuditEntry, AuditQuery, AuditRecord, Store},
};

/// What somebody asks for.
pub(crate) struct Asked {
    /// E.g. `token.issue`.
    pub action: &'static str,
    pub node: Option<NodeId>,
    pub target: Option<String>,
    pub detail: Option<Value>,
}

impl Asked {
    pub(crate) fn of_node(action: &'static str, node: &NodeId) -> Self {
        Self { action, node: Some(node.clone()), target: None, detail: None }
    }
}

impl Person {
    /// As the audit trails name them.
    pub(crate) fn actor(&self) -> String {
        format!("user:{}", self.sub)
    }

    /// Does `work`, whose first change through the store that it is given is recorded with it; what
    /// changes nothing is recorded by itself.
    pub(crate) async fn audited<T>(
        &self,
        app: &App,
        asked: Asked,
        work: impl AsyncFnOnce(Store) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        let Asked { action, node, target, detail } = asked;
        let store = app.store.on_behalf(AuditEntry {
            at: clock::now(),
            org: self.org_id.clone(),
            actor: self.actor(),
            roles: self.roles.clone(),
            address: Some(self.address),
            action,
            node,
            target,
            detail,
        });
        let done = work(store.clone()).await;
        let outcome = match &done {
            Ok(_) => "unchanged",
            // The database that failed at the change would fail at its record, too.
            Err(refusal) if refusal.is_fault() => return done,
            Err(refusal) => refusal.code().as_str(),
        };
        if let Err(error) = store.record_outcome(outcome).await {
            tracing::warn!(%error, action, "what somebody asked for could not be recorded");
        }
        done
    }
}

type Limit = Bounded<1, 1000>;

/// Where the next page begins, for formats that have no place for it.
const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Filter {
    /// Only what concerns this node.
    node_id: Option<NodeId>,
    /// Only what they did: `user:<id>` or `command line`.
    actor: Option<String>,
    /// Only this, e.g. `token.issue`.
    action: Option<String>,
    /// Only what was asked for then or later.
    #[param(inline)]
    since: Option<TimeOfQuery>,
    /// Only what was asked for before.
    #[param(inline)]
    until: Option<TimeOfQuery>,
    /// The `nextCursor` of the page before.
    cursor: Option<i64>,
    /// 100 unless something else is said.
    #[param(inline)]
    limit: Option<Limit>,
    /// `json` unless something else is said. `ndjson` and `csv` have the records alone, and `X-Next-Cursor`.
    #[param(inline)]
    format: Option<Format>,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    Json,
    Ndjson,
    Csv,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditPage {
    data: Vec<Record>,
    /// `null` on the last page.
    next_cursor: Option<i64>,
}

/// Something that somebody did, or was refused.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    at: Timestamp,
    /// `user:<id>` or `command line`.
    actor: String,
    roles: Vec<String>,
    /// From where they asked; `null` for the command line.
    address: Option<String>,
    /// E.g. `node.register`, `token.issue`, `node.decommission`.
    action: String,
    node_id: Option<NodeId>,
    /// What else it concerns: a token's `jti`, an event, a name.
    target: Option<String>,
    /// `done`, `unchanged`, or the code of the refusal.
    outcome: String,
    /// What was asked for.
    detail: Option<Value>,
}

/// List what people did with the organisation's nodes
///
/// Newest first.
#[utoipa::path(get, path = "/audit", operation_id = "listAudit", tag = "audit", security(("user" = [])),
    params(Filter), responses((status = 200, description = "A page of the audit trail", content(
        (AuditPage = "application/json"), (String = "application/x-ndjson"), (String = "text/csv")))))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    AsManager(person): AsManager,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Rejection> {
    let Query(Filter { node_id, actor, action, since, until, cursor, limit, format }) = filter?;
    let limit = limit.map_or(100, Bounded::value);
    // No user's id has a blank: it is a `+` that the query's decoding took.
    let actor = actor.map(|actor| if actor.starts_with("user:") { actor.replace(' ', "+") } else { actor });
    let (org, time) = (person.org_id.clone(), |it: TimeOfQuery| it.0);
    let (since, until) = (since.map(time), until.map(time));
    // One more tells whether there is a next page.
    let query =
        AuditQuery { org, node: node_id, actor, action, since, until, before: cursor, limit: limit + 1 };
    let mut records = app.store.audit(&query).await?;
    let more = records.len() as u64 > limit;
    records.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next_cursor = records.last().filter(|_| more).map(|last| last.seq);
    let data: Vec<_> = records.into_iter().map(Record::from).collect();
    let (kind, text) = match format.unwrap_or(Format::Json) {
        Format::Json => return Ok(Json(AuditPage { data, next_cursor }).into_response()),
        Format::Ndjson => ("application/x-ndjson", data.iter().map(Record::as_line).collect::<String>()),
        Format::Csv => (
            "text/csv; charset=utf-8",
            CSV_HEAD.to_owned() + &data.iter().map(Record::as_csv).collect::<String>(),
        ),
    };
    let mut response = ([(header::CONTENT_TYPE, kind)], text).into_response();
    if let Some(cursor) = next_cursor {
        response.headers_mut().insert(NEXT_CURSOR, cursor.into());
    }
    Ok(response)
}

/// The first line of a table.
pub(crate) const CSV_HEAD: &str = "at,actor,roles,address,action,nodeId,target,outcome,detail\r\n";

impl Record {
    /// A line of NDJSON.
    pub(crate) fn as_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// A line of CSV (RFC 4180).
    pub(crate) fn as_csv(&self) -> String {
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        let fields = [
            self.at.to_string(),
            self.actor.clone(),
            self.roles.join(" "),
            optional(&self.address),
            self.action.clone(),
            self.node_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            optional(&self.target),
            self.outcome.clone(),
            self.detail.as_ref().map(ToString::to_string).unwrap_or_default(),
        ];
        fields.map(|field| csv_field(&field)).join(",") + "\r\n"
    }
}

/// A field of CSV. A program that calculates tables would take what begins like a formula for one.
fn csv_field(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

impl From<AuditRecord> for Record {
    fn from(record: AuditRecord) -> Self {
        let AuditRecord { at, actor, roles, address, action, node, target, outcome, detail, .. } = record;
        Self { at, actor, roles, address, action, node_id: node, target, outcome, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_csv_is_one_field_and_no_formula() {
        for (text, field) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("a\nb", "\"a\nb\""),
            ("=1+1", "'=1+1"),
            ("@x,y", "\"'@x,y\""),
        ] {
            assert_eq!(csv_field(text), field);
        }
    }
}
