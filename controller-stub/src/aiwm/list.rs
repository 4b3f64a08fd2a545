//! `GET /nodes`: `page`, `limit` and `filter[…]`. The nodes that wait for approval are `pending` in the
//! database, so where some do, their pages are cut here.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use aio_protocol::{ids::NodeId, node::NodeStatus};
use axum::{
    Json,
    extract::{Query, State},
};
use serde::Serialize;

use super::{
    dialect::Dialect,
    document::{AWAITING_APPROVAL, Document, status_of},
    users::User,
};
use crate::{
    api::error::Rejection,
    node::composed,
    store::{NodeFilter, NodeQuery, Sort, SortKey, Window},
};

const DEFAULT_LIMIT: u64 = 10;
const MAX_LIMIT: u64 = 100;

/// No page begins behind so many nodes.
const MAX_PAGE: u64 = 1_000_000;

/// Which page of which nodes.
#[derive(Debug, PartialEq)]
struct Asked {
    page: u64,
    limit: u64,
    /// As AIWM names it.
    status: Option<String>,
    name: Option<String>,
}

#[derive(Serialize)]
pub(super) struct List {
    data: Vec<Document>,
    pagination: Pagination,
    statistics: Statistics,
}

#[derive(Serialize)]
struct Pagination {
    page: u64,
    limit: u64,
    total: u64,
}

/// Of all the organisation's nodes, whatever the filter.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statistics {
    total: u64,
    by_status: BTreeMap<&'static str, u64>,
    by_type: BTreeMap<String, u64>,
}

pub(super) async fn list(
    State(dialect): State<Arc<Dialect>>,
    user: User,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<List>, Rejection> {
    let app = &dialect.app;
    let asked = Asked::read(pairs)?;
    let org = &user.person.org_id;
    let waiting = app.store.nodes_awaiting_approval(org).await?;
    let statuses = match asked.status.as_deref() {
        None => all_but_removed(),
        Some(AWAITING_APPROVAL) => vec![NodeStatus::Pending],
        Some(status) => {
            NodeStatus::parse(status).filter(|it| *it != NodeStatus::Inactive).into_iter().collect()
        }
    };
    let cut_here = !waiting.is_empty() && statuses == [NodeStatus::Pending];
    let offset = (asked.page - 1) * asked.limit;
    let window = match cut_here {
        true => Window { offset: 0, limit: MAX_PAGE },
        false => Window { offset, limit: asked.limit },
    };
    let filter = NodeFilter { statuses, name: asked.name.as_deref().map(composed), ..NodeFilter::default() };
    let nothing = filter.statuses.is_empty();
    let sort = Sort { by: SortKey::CreatedAt, descending: true };
    let query = NodeQuery { org: org.clone(), filter, sort, after: None, window };
    let mut found = app.store.nodes(&query).await?;
    if nothing {
        (found.nodes, found.total) = (Vec::new(), 0);
    }
    if cut_here {
        found
            .nodes
            .retain(|node| Some(status_of(node, waiting.contains(&node.id))) == asked.status.as_deref());
        found.total = found.nodes.len() as u64;
        let (offset, limit) = (usize::try_from(offset), usize::try_from(asked.limit));
        found.nodes = found
            .nodes
            .into_iter()
            .skip(offset.unwrap_or(usize::MAX))
            .take(limit.unwrap_or(usize::MAX))
            .collect();
    }
    let statistics = statistics(&found.by_status, &waiting, app.store.nodes_by_role(org).await?);
    let document = |node: crate::node::Node| {
        let awaits = waiting.contains(&node.id);
        Document::seen_now(app, node, awaits)
    };
    Ok(Json(List {
        data: found.nodes.into_iter().map(document).collect(),
        pagination: Pagination { page: asked.page, limit: asked.limit, total: found.total },
        statistics,
    }))
}

fn all_but_removed() -> Vec<NodeStatus> {
    NodeStatus::ALL.into_iter().filter(|status| *status != NodeStatus::Inactive).collect()
}

fn statistics(
    known: &BTreeMap<NodeStatus, u64>,
    waiting: &HashSet<NodeId>,
    by_type: BTreeMap<String, u64>,
) -> Statistics {
    let mut by_status: BTreeMap<&'static str, u64> = known
        .iter()
        .filter(|(status, _)| **status != NodeStatus::Inactive)
        .map(|(status, count)| (status.as_str(), *count))
        .collect();
    let total = by_status.values().sum();
    if !waiting.is_empty() {
        let waiting = waiting.len() as u64;
        by_status.insert(AWAITING_APPROVAL, waiting);
        let pending = by_status.entry(NodeStatus::Pending.as_str()).or_default();
        *pending = pending.saturating_sub(waiting);
        by_status.retain(|_, count| *count > 0);
    }
    Statistics { total, by_status, by_type }
}

impl Asked {
    fn read(pairs: Vec<(String, String)>) -> Result<Self, Rejection> {
        let mut asked = Self { page: 1, limit: DEFAULT_LIMIT, status: None, name: None };
        for (key, value) in pairs {
            match key.as_str() {
                "page" => asked.page = number("page", &value, MAX_PAGE)?,
                "limit" => asked.limit = number("limit", &value, MAX_LIMIT)?,
                "filter[status]" => asked.status = Some(value),
                "filter[name]" => asked.name = Some(value),
                key if key.starts_with("filter[") => {
                    let message = "must be filter[status] or filter[name]";
                    return Err(Rejection::field(format!("{key}: {message}")));
                }
                // AIWM drops what it does not know.
                _ => {}
            }
        }
        Ok(asked)
    }
}

fn number(name: &str, text: &str, most: u64) -> Result<u64, Rejection> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| Rejection::field(format!("{name}: must be a number from 1 to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Asked, Rejection> {
        Asked::read(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_page_has_ten_nodes_unless_something_else_is_asked_for() {
        let plain = read(&[]).unwrap();
        assert_eq!((plain.page, plain.limit), (1, 10));
        let asked =
            read(&[("page", "3"), ("limit", "50"), ("filter[status]", "online"), ("other", "x")]).unwrap();
        assert_eq!((asked.page, asked.limit, asked.status.as_deref()), (3, 50, Some("online")));
        for wrong in [("page", "0"), ("page", "x"), ("limit", "101"), ("limit", "-1"), ("filter[role]", "x")]
        {
            assert!(read(&[wrong]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn nodes_that_wait_for_approval_are_counted_apart_from_pending_ones() {
        let known =
            BTreeMap::from([(NodeStatus::Pending, 3), (NodeStatus::Online, 1), (NodeStatus::Inactive, 9)]);
        let waiting = HashSet::from([NodeId::from_bytes([1; 12]), NodeId::from_bytes([2; 12])]);
        let counted = statistics(&known, &waiting, BTreeMap::new());
        let expected = BTreeMap::from([("awaiting-approval", 2), ("online", 1), ("pending", 1)]);
        assert_eq!((counted.total, counted.by_status), (4, expected));
    }
}
