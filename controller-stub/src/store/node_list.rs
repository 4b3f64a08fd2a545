//! Lists of an organisation's nodes: which, in which order, from where on. They are read without what only
//! one node is asked for.

use std::collections::BTreeMap;

use aio_protocol::{
    ids::{NodeId, OwnerId},
    node::NodeStatus,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use sqlx::{Any, AssertSqlSafe, query::Query};

use super::{
    database::Store,
    error::StoreError,
    nodes::{by_status, read},
    rows::{Window, count, signed},
};
use crate::{
    labels::{Selector, natural_key},
    node::Node,
};

/// Which nodes to list.
#[derive(Debug, Clone)]
pub(crate) struct NodeQuery {
    pub org: OwnerId,
    pub filter: NodeFilter,
    pub sort: Sort,
    /// Behind which node to begin; it counts instead of the window's offset.
    pub after: Option<Position>,
    pub window: Window,
}

/// What nodes must be to be listed; what is empty is no condition.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeFilter {
    /// One of these.
    pub statuses: Vec<NodeStatus>,
    /// The whole name, or one with `*` for any characters; then the case of letters does not count.
    pub name: Option<String>,
    /// All of these.
    pub labels: Vec<Selector>,
    /// One of these, as workers name them.
    pub versions: Vec<String>,
    /// One of these nodes. None at all where it names none.
    pub ids: Option<Vec<NodeId>>,
}

/// The order of a list of nodes. Those that are alike in it are ordered by their id, so that no
/// page shows one twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sort {
    pub by: SortKey,
    pub descending: bool,
}

/// What a list of nodes is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SortKey {
    CreatedAt,
    Name,
    Status,
    /// Who never named one comes first.
    Version,
    /// Who was never seen counts as seen first of all.
    LastSeenAt,
}

/// A node's place in an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    key: Value,
    id: String,
}

/// Something to compare a column with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Value {
    Number(i64),
    Text(String),
}

/// A page of nodes. None of them has its `system_info`.
#[derive(Debug, Clone)]
pub(crate) struct NodePage {
    pub nodes: Vec<Node>,
    /// Where the next page begins; none when this is the last.
    pub next: Option<Position>,
    /// How many nodes fit the filter.
    pub total: u64,
    /// How many of the organisation's nodes have each status; one that no node has is absent.
    pub by_status: BTreeMap<NodeStatus, u64>,
}

/// All that a list shows. `system_info` is the one that is large.
const COLUMNS: &str = "id, version, org_id, user_id, name, roles, status, created_at, websocket_connected, last_seen_at, \
    connection_established_at, ip_address, daemon_version, instance_id, boot_id, NULL AS system_info, installation, \
    tokens_not_before, admitted_not_before, labels, update_report, updates_itself, pin, held_by, at AS sighted_at";

impl Store {
    /// A page of an organisation's nodes.
    pub(crate) async fn nodes(&self, query: &NodeQuery) -> Result<NodePage, StoreError> {
        let _share = self.shares.take(&query.org).await;
        let mut found = Conditions::new(query);
        let counted = found.clone();
        let column = query.sort.column();
        let (direction, beyond) = if query.sort.descending { ("DESC", "<") } else { ("ASC", ">") };
        if let Some(Position { key, id }) = &query.after {
            let (key, id) = (found.place(key.clone()), found.place(Value::Text(id.clone())));
            found.text.push_str(&format!(" AND ({column}, id) {beyond} ({key}, {id})"));
        }
        let Window { offset, limit } = query.window;
        // One more tells whether there is a next page.
        let limit_place = found.place(Value::Number(signed(limit.saturating_add(1))));
        let offset = if query.after.is_some() { 0 } else { signed(offset) };
        let offset_place = found.place(Value::Number(offset));
        let statement = format!(
            "SELECT {COLUMNS} FROM nodes LEFT JOIN sightings ON node_id = id WHERE {} ORDER BY {column} {direction}, id {direction} LIMIT {limit_place} OFFSET {offset_place}",
            found.text
        );
        let rows = bind(&statement, found.values).fetch_all(&mut *self.lists.take().await?).await?;
        let mut nodes = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let more = nodes.len() as u64 > limit;
        nodes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let next = nodes.last().filter(|_| more).map(|last| query.sort.position(last));

        let total = format!("SELECT COUNT(*) FROM nodes WHERE {}", counted.text);
        let total = count(&bind(&total, counted.values).fetch_one(&mut *self.lists.take().await?).await?, 0)?;
        let counts = sqlx::query("SELECT status, COUNT(*) FROM nodes WHERE org_id = $1 GROUP BY status")
            .bind(query.org.as_str())
            .fetch_all(&mut *self.lists.take().await?)
            .await?;
        Ok(NodePage { nodes, next, total, by_status: by_status(&counts)? })
    }
}

impl Sort {
    /// A constant text, so that nothing which was asked for gets into the statement.
    fn column(self) -> &'static str {
        match self.by {
            SortKey::CreatedAt => "created_at",
            SortKey::Name => "name_key",
            SortKey::Status => "status",
            SortKey::Version => "COALESCE(daemon_version, '')",
            // Databases disagree on where a NULL stands.
            SortKey::LastSeenAt => "COALESCE(at, last_seen_at, 0)",
        }
    }

    fn position(self, node: &Node) -> Position {
        let key = match self.by {
            SortKey::CreatedAt => Value::Number(node.created_at.as_millis()),
            SortKey::Name => Value::Text(natural_key(&node.name)),
            SortKey::Status => Value::Text(node.status.as_str().to_owned()),
            SortKey::Version => Value::Text(node.daemon_version.clone().unwrap_or_default()),
            SortKey::LastSeenAt => Value::Number(node.last_seen_at.map_or(0, Timestamp::as_millis)),
        };
        Position { key, id: node.id.to_string() }
    }
}

impl Position {
    /// Whether this is a place in such an order.
    pub(crate) fn belongs_to(&self, sort: Sort) -> bool {
        matches!(self.key, Value::Number(_)) == matches!(sort.by, SortKey::CreatedAt | SortKey::LastSeenAt)
    }
}

/// A condition with numbered places for its values.
#[derive(Clone)]
struct Conditions {
    text: String,
    values: Vec<Value>,
}

impl Conditions {
    fn new(query: &NodeQuery) -> Self {
        let NodeFilter { statuses, name, labels, versions, ids } = &query.filter;
        let mut all =
            Self { text: "org_id = $1".to_owned(), values: vec![Value::Text(query.org.to_string())] };
        if !statuses.is_empty() {
            let places: Vec<_> =
                statuses.iter().map(|status| all.place(Value::Text(status.as_str().to_owned()))).collect();
            all.text.push_str(&format!(" AND status IN ({})", places.join(", ")));
        }
        if let Some(name) = name {
            if name.contains('*') {
                let place = all.place(Value::Text(like(name)));
                all.text.push_str(&format!(" AND LOWER(name) LIKE LOWER({place}) ESCAPE '\\'"));
            } else {
                let place = all.place(Value::Text(name.clone()));
                all.text.push_str(&format!(" AND name = {place}"));
            }
        }
        for selector in labels {
            // Not LIKE, to which SQLite's capital letters are small ones.
            let place = all.place(Value::Text(selector.in_json()));
            all.text.push_str(&format!(" AND REPLACE(labels, {place}, '') <> labels"));
        }
        if !versions.is_empty() {
            let places: Vec<_> =
                versions.iter().map(|version| all.place(Value::Text(version.clone()))).collect();
            all.text.push_str(&format!(" AND daemon_version IN ({})", places.join(", ")));
        }
        if let Some(ids) = ids {
            // One value, however many there are: a statement has few places.
            let ids: Vec<_> = ids.iter().map(NodeId::as_str).collect();
            let place = all.place(Value::Text(serde_json::json!(ids).to_string()));
            all.text.push_str(&format!(" AND id IN (SELECT value FROM json_each({place}))"));
        }
        all
    }

    /// Keeps a value, and says where it stands in the statement.
    fn place(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }
}

/// A pattern of LIKE in which only `*` has a meaning.
fn like(pattern: &str) -> String {
    let plain = pattern.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    plain.replace('*', "%")
}

fn bind(statement: &str, values: Vec<Value>) -> Query<'_, Any, sqlx::any::AnyArguments> {
    values.into_iter().fold(sqlx::query(AssertSqlSafe(statement.to_owned())), |query, value| match value {
        Value::Number(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
    })
}
