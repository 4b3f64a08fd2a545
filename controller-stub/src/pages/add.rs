//! Adding nodes: one, or many with numbered names, all in one transaction. The answer has what each machine
//! is installed with, shown once; below it the new nodes appear as they come online.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aio_protocol::{
    error_code::ErrorCode,
    node::{NodeRole, Owner},
};
use askama::Template;
use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use serde::Deserialize;
use serde_json::json;

use super::{
    Pages,
    frame::{Frame, Tab},
    nodes::{NodePage, Row},
    session::{Posted, Visitor},
    words,
};
use crate::{
    api::{audit::Asked, error::Rejection, roles::Permission},
    clock,
    commands::{self, Added, AddedNode},
    enrolment::DEFAULT_LIFE_SECS,
    labels::Labels,
    lifecycle,
    node::{Node, NodeName},
    random,
    store::{Newcomer, Store},
};

/// So many nodes are added at once: their tokens stand on one page.
const MAX_ADDED: u32 = 500;

#[derive(Template)]
#[template(path = "pages/add.html")]
struct Form {
    frame: Frame,
    /// The label of nodes that were added together, and what became of them.
    batch: Option<String>,
    rows: Vec<Row>,
    online: usize,
}

#[derive(Template)]
#[template(path = "pages/added.html")]
struct Registered {
    frame: Frame,
    nodes: Vec<AddedNode>,
    first: String,
    script: Option<String>,
    inventory: String,
    user_data: Option<String>,
    page: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    /// The names of the nodes to watch, with a `*`.
    watch: String,
}

pub(super) async fn form(
    State(_): State<Arc<Pages>>,
    visitor: Visitor,
    which: Result<Query<Which>, QueryRejection>,
) -> Response {
    let built = async {
        let watch = which?.0.watch;
        let mut rows = Vec::new();
        if !watch.is_empty() {
            let query = format!("/nodes?name={}&sort=-createdAt&limit=100", words::escaped(&watch));
            let page: NodePage = visitor.api.get(&query).await?;
            rows = page.data.into_iter().map(Row::from).collect();
        }
        Ok::<_, Rejection>(Form {
            frame: Frame::new(&visitor.scene, Tab::Nodes),
            online: rows.iter().filter(|row: &&Row| row.status == "online").count(),
            batch: Some(watch).filter(|watch| !watch.is_empty()),
            rows,
        })
    };
    match built.await {
        Ok(page) => visitor.scene.page(&page),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

pub(super) async fn register(State(_): State<Arc<Pages>>, Posted { visitor, fields }: Posted) -> Response {
    let added = async {
        if !visitor.may(Permission::Manage) {
            let message = "this takes a role that may manage nodes";
            return Err(Rejection::forbidden(ErrorCode::Forbidden, message));
        }
        let names = expanded(fields.text("names"))?;
        let labels = labels(fields.text("labels"))?;
        let watch = common(&names);
        Ok((add(&visitor, names, labels).await?, watch))
    };
    let (added, watch) = match added.await {
        Ok(added) => added,
        Err(rejection) => return visitor.scene.refuse(rejection),
    };
    let first = added.nodes.first();
    let inventory = match commands::inventory(&added) {
        Ok(inventory) => inventory,
        Err(error) => return visitor.scene.refuse(Rejection::fault(&error)),
    };
    visitor.scene.page(&Registered {
        frame: Frame::new(&visitor.scene, Tab::Nodes),
        first: first.map(|node| node.command.clone()).unwrap_or_default(),
        script: first.and_then(|node| node.install_script.clone()).filter(|_| added.nodes.len() == 1),
        user_data: first.and_then(commands::user_data).filter(|_| added.nodes.len() == 1),
        inventory,
        page: format!("ui/add?watch={}", words::escaped(&watch)),
        nodes: added.nodes,
    })
}

/// Registers a node of each name with a token: all of them, or none.
async fn add(visitor: &Visitor, names: Vec<String>, labels: Labels) -> Result<Added, Rejection> {
    let (app, person) = (visitor.app(), &visitor.person);
    let actor = person.actor();
    let owner = Owner { org_id: person.org_id.clone(), user_id: person.sub.clone() };
    let detail = json!({ "count": names.len(), "labels": labels });
    let asked = Asked { action: "node.register", node: None, target: None, detail: Some(detail) };
    let work = async |store: Store| {
        let (mut newcomers, mut nodes) = (Vec::with_capacity(names.len()), Vec::with_capacity(names.len()));
        for name in names {
            let now = clock::now();
            let id = random::object_id(now)?;
            let mut node = Node::registered(id, name, vec![NodeRole::Worker], owner.clone(), now);
            node.labels = labels.clone();
            let (enrolment, token) =
                app.enroller.draw_up(&node, None, DEFAULT_LIFE_SECS, &actor, now).await?;
            nodes.push(AddedNode {
                node_id: node.id.to_string(),
                name: node.name.clone(),
                owner: owner.clone(),
                command: format!("sudo aio-worker install --token {}", enrolment.token),
                token: enrolment.token,
                expires_at: enrolment.expires_at,
                install_script: enrolment.install_script,
            });
            let step = lifecycle::registration(&node, &actor);
            newcomers.push(Newcomer { node, step, token: Some(token) });
        }
        let taken = store.enrol_nodes(&newcomers).await?;
        if let Some(name) = taken.first() {
            return Err(Rejection::name_taken(name));
        }
        for newcomer in &newcomers {
            app.outbox.notifier.notify(&newcomer.node.id, &newcomer.node.owner.org_id);
        }
        let authority = app.enroller.deployment.authority.as_ref().map(|it| it.pem.clone());
        Ok(Added { nodes, authority })
    };
    person.audited(app, asked, work).await
}

/// The names that a text means: `gpu-{001..100}` is a hundred, a blank or comma stands between two.
fn expanded(text: &str) -> Result<Vec<String>, Rejection> {
    let mut names = Vec::new();
    for part in text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty()) {
        names.extend(range(part)?);
    }
    if names.is_empty() {
        return Err(Rejection::field("names: must name at least one node"));
    }
    if names.len() > MAX_ADDED as usize {
        return Err(Rejection::field(format!("names: at most {MAX_ADDED} are added at once")));
    }
    let named = names.into_iter().map(|name| NodeName::try_from(name).map(String::from));
    let names: Vec<String> = named
        .collect::<Result<_, _>>()
        .map_err(|problem| Rejection::field(format!("names: a name {problem}")))?;
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(Rejection::field(format!("names: `{twice}` stands twice"))),
        None => Ok(names),
    }
}

/// `prefix{first..last}suffix`, the numbers as wide as the first is written; or a name as it is.
fn range(text: &str) -> Result<Vec<String>, Rejection> {
    let Some((prefix, rest)) = text.split_once('{') else { return Ok(vec![text.to_owned()]) };
    let wrong = || Rejection::field(format!("names: `{text}` is no range; one looks like gpu-{{001..100}}"));
    let (numbers, suffix) = rest.split_once('}').ok_or_else(wrong)?;
    let (first, last) = numbers.split_once("..").ok_or_else(wrong)?;
    let width = first.len();
    let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err(wrong());
    }
    if last - first >= MAX_ADDED {
        return Err(Rejection::field(format!("names: at most {MAX_ADDED} are added at once")));
    }
    Ok((first..=last).map(|number| format!("{prefix}{number:0width$}{suffix}")).collect())
}

fn labels(text: &str) -> Result<Labels, Rejection> {
    let pairs = text.split([',', ' ']).map(str::trim).filter(|pair| !pair.is_empty());
    let labels: BTreeMap<_, _> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    Labels::try_from(labels).map_err(|problem| Rejection::field(format!("labels: {problem}")))
}

/// A pattern that fits all of the names: what they begin with, and a `*`.
fn common(names: &[String]) -> String {
    let Some(first) = names.first() else { return String::new() };
    if names.len() == 1 {
        return first.clone();
    }
    let mut shared = first.as_str();
    while !names.iter().all(|name| name.starts_with(shared)) {
        let Some((last, _)) = shared.char_indices().last() else { break };
        shared = shared.get(..last).unwrap_or_default();
    }
    format!("{shared}*")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Option<Vec<String>> {
        expanded(text).ok()
    }

    #[test]
    fn a_range_is_as_many_names_as_wide_as_it_is_written() {
        assert_eq!(names("gpu-{008..010}").unwrap(), ["gpu-008", "gpu-009", "gpu-010"]);
        assert_eq!(names("a{1..2}b, c").unwrap(), ["a1b", "a2b", "c"]);
        assert_eq!(names("gpu-{001..100}").unwrap().len(), 100);
        for text in
            ["", " , ", "a{1..}", "a{2..1}", "a{1..2", "a{x..y}", "a, a", "n{1..501}", "n{0..4294967295}"]
        {
            assert!(names(text).is_none(), "{text}");
        }
    }

    #[test]
    fn those_that_were_added_together_are_watched_by_what_their_names_share() {
        let watched = |text: &str| common(&expanded(text).unwrap());
        assert_eq!(watched("gpu-{001..100}"), "gpu-*");
        assert_eq!(
            (watched("gpu"), watched("ab, c"), watched("ä1, ö1")),
            ("gpu".into(), "*".into(), "*".into())
        );
    }
}
