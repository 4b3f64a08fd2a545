//! What must outlive the process, behind one trait. The SQL under `store/` is one text for SQLite and PostgreSQL. The store
//! decides nothing about nodes; it keeps a node's change, its audit rows and its events together or not at all. All changes go
//! through one writer, which says how a new one is added.

mod dead_letters;
mod enrolments;
mod inbox;
mod nodes;
mod offers;
mod outbox;
mod settings;
mod sql;
mod tokens;
mod transitions;
mod writer;

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

use aio_protocol::{
    event::{InvalidEvent, NodeEvent},
    ids::{NodeId, OwnerId},
    node::NodeStatus,
    release::{Checksum, Platform, ReleaseVersion},
    time::Timestamp,
};

use crate::{node::Node, rotation::History};

pub(crate) use sql::SqlStore;

/// The future of an answer.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// What must outlive the process.
pub(crate) trait Store: Send + Sync {
    /// Reads a setting.
    fn setting<'a>(&'a self, name: &'a str) -> Answer<'a, Option<String>>;
    /// Writes a setting.
    fn put_setting<'a>(&'a self, name: &'a str, value: &'a str) -> Answer<'a, ()>;
    /// Writes a setting unless it has a value, and reads the value that it has then.
    fn settle<'a>(&'a self, name: &'a str, value: &'a str) -> Answer<'a, String>;

    /// Keeps a new node, with its first audit row and its first event.
    fn add_node<'a>(&'a self, node: &'a Node, step: &'a RecordedStep) -> Answer<'a, ()>;
    /// Keeps nodes that are registered together, each with its first token, unless nodes of the same organisation that are in service have
    /// names of theirs: then nothing is kept, and those names are the answer.
    fn enrol_nodes<'a>(&'a self, newcomers: &'a [Newcomer]) -> Answer<'a, Vec<String>>;
    /// Keeps a changed node with the audit rows and events of its steps, if nobody else has saved it since `node` was read;
    /// says whether it did.
    fn save<'a>(&'a self, node: &'a Node, steps: &'a [RecordedStep]) -> Answer<'a, bool>;
    fn node<'a>(&'a self, id: &'a NodeId) -> Answer<'a, Option<Node>>;
    /// A node, and what is known of a token of it.
    fn admission<'a>(&'a self, id: &'a NodeId, jti: &'a str) -> Answer<'a, Option<Admission>>;
    /// A page of an organisation's nodes.
    fn nodes<'a>(&'a self, query: &'a NodeQuery) -> Answer<'a, NodePage>;
    /// How many nodes have each status; one that no node has is absent.
    fn census(&self) -> Answer<'_, BTreeMap<NodeStatus, u64>>;
    /// Which nodes have this status.
    fn nodes_with_status(&self, status: NodeStatus) -> Answer<'_, Vec<NodeId>>;
    /// Writes when nodes were last heard of. Never moves a node's time back.
    fn put_last_seen<'a>(&'a self, seen: &'a [(NodeId, Timestamp)]) -> Answer<'a, ()>;
    /// Notes that no node is connected: at start, none is.
    fn clear_connections(&self) -> Answer<'_, ()>;

    fn add_token<'a>(&'a self, token: &'a IssuedToken) -> Answer<'a, ()>;
    fn token<'a>(&'a self, jti: &'a str) -> Answer<'a, Option<IssuedToken>>;
    fn newest_token<'a>(&'a self, node: &'a NodeId) -> Answer<'a, Option<IssuedToken>>;
    /// Withdraws every token of a node that was issued until `at`, by whomever, and keeps the one that takes their place.
    fn revoke_tokens<'a>(
        &'a self,
        node: &'a NodeId,
        at: Timestamp,
        successor: Option<&'a IssuedToken>,
    ) -> Answer<'a, ()>;
    /// What was offered in place of a token so far.
    fn offers_for<'a>(&'a self, jti: &'a str) -> Answer<'a, History>;
    /// Keeps an offer and revokes the one before it; refuses when the token that it replaces was withdrawn.
    fn offer_token<'a>(&'a self, replacement: &'a Replacement) -> Answer<'a, bool>;
    /// Notes that an offer was taken, and revokes the token that it replaces. Says whether the offer still stood.
    fn take_offer<'a>(&'a self, jti: &'a str, at: Timestamp) -> Answer<'a, bool>;
    /// Notes that an offer was given back, and revokes it. Says whether it stood.
    fn reject_offer<'a>(
        &'a self,
        node: &'a NodeId,
        jti: &'a str,
        reason: &'a str,
        at: Timestamp,
    ) -> Answer<'a, bool>;
    /// Whose tokens were withdrawn while their worker was connected, and it still is.
    fn connected_without_token(&self) -> Answer<'_, Vec<NodeId>>;

    /// A page of a node's audit trail, newest first.
    fn transitions<'a>(&'a self, node: &'a NodeId, window: Window) -> Answer<'a, TransitionPage>;

    /// Which nodes have events that NOTI has not acknowledged, and whose they are.
    fn nodes_with_undelivered(&self) -> Answer<'_, Vec<(NodeId, OwnerId)>>;
    /// The oldest events of a node that NOTI has not acknowledged, in their order.
    fn undelivered<'a>(&'a self, node: &'a NodeId, limit: u64) -> Answer<'a, Vec<Undelivered>>;
    /// How much is owed to NOTI.
    fn backlog(&self) -> Answer<'_, Backlog>;
    /// Forgets an event that NOTI acknowledged.
    fn delivered<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Notes a failed attempt and when the next one is due.
    fn postpone<'a>(&'a self, id: &'a str, now: Timestamp, due: Timestamp, error: &'a str) -> Answer<'a, ()>;
    /// Gives an event up: it becomes a dead letter.
    fn bury<'a>(&'a self, id: &'a str, now: Timestamp, reason: &'a str) -> Answer<'a, ()>;
    /// A page of an organisation's dead letters, the latest first.
    fn dead_letters<'a>(&'a self, org: &'a OwnerId, window: Window) -> Answer<'a, DeadLetterPage>;
    /// Puts an organisation's dead letters back into the outbox, or the one with this id; says how many, and of which nodes.
    fn replay<'a>(
        &'a self,
        org: &'a OwnerId,
        id: Option<&'a str>,
        now: Timestamp,
    ) -> Answer<'a, (u64, Vec<(NodeId, OwnerId)>)>;

    /// Keeps an event that the built-in NOTI received; says whether it is new.
    fn receive<'a>(&'a self, id: &'a str, event: &'a NodeEvent, now: Timestamp) -> Answer<'a, bool>;
    /// Behind which number a list of an organisation's events begins; none when the event to begin behind is not there.
    fn event_position<'a>(&'a self, org: &'a OwnerId, since: &'a Since) -> Answer<'a, Option<i64>>;
    /// Drops the oldest events that were received before `before`, at most `limit`, and says how many.
    fn prune_events(&self, before: Timestamp, limit: u64) -> Answer<'_, u64>;
    /// Received events, oldest first.
    fn events<'a>(&'a self, query: &'a EventQuery) -> Answer<'a, Vec<Received>>;
}

/// One move of a node, with all that is owed for it. `event` also says what the node's status is after it.
#[derive(Debug, Clone)]
pub(crate) struct RecordedStep {
    pub from: Option<NodeStatus>,
    pub to: NodeStatus,
    /// The trigger's name.
    pub cause: &'static str,
    /// Who caused it.
    pub actor: String,
    /// When the frame, the request or the end of a lease that caused it was noticed: the event's delivery is measured from here.
    pub noticed_at: Timestamp,
    pub event: NodeEvent,
}

/// A node that is registered, with its first token.
#[derive(Debug, Clone)]
pub(crate) struct Newcomer {
    pub node: Node,
    /// Its registration.
    pub step: RecordedStep,
    pub token: IssuedToken,
}

/// Which nodes to list.
#[derive(Debug, Clone)]
pub(crate) struct NodeQuery {
    pub org: OwnerId,
    pub status: Option<NodeStatus>,
    pub sort: Sort,
    pub window: Window,
}

/// Which part of a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub offset: u64,
    pub limit: u64,
}

/// The order of a list of nodes. Those that are alike in it are ordered by their id, so that no page shows one twice.
#[derive(Debug, Clone, Copy)]
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
    /// Who was never seen counts as seen first of all.
    LastSeenAt,
}

/// A node, and what is known of a token of it.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    pub node: Node,
    /// `None` when it was not issued here.
    pub revoked: Option<bool>,
    /// Whether it is an offer that nobody has taken yet.
    pub offered: bool,
}

/// A token that is offered in place of another.
#[derive(Debug, Clone)]
pub(crate) struct Replacement {
    pub issued: IssuedToken,
    /// The `jti` of the other.
    pub replaces: String,
    pub replaced_issued_at: Timestamp,
}

/// A row of the audit trail: a move that a node made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transition {
    pub from: Option<NodeStatus>,
    pub to: NodeStatus,
    pub cause: String,
    pub actor: String,
    pub at: Timestamp,
}

/// A page of an audit trail.
#[derive(Debug, Clone)]
pub(crate) struct TransitionPage {
    pub transitions: Vec<Transition>,
    /// How many there are in all.
    pub total: u64,
}

/// A page of nodes.
#[derive(Debug, Clone)]
pub(crate) struct NodePage {
    pub nodes: Vec<Node>,
    /// How many of the organisation's nodes have each status; one that no node has is absent.
    pub by_status: BTreeMap<NodeStatus, u64>,
}

/// A token that was issued; not the token itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IssuedToken {
    pub jti: String,
    pub node: NodeId,
    pub sha256: String,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    /// The release that it installs.
    pub version: ReleaseVersion,
    /// What was published of that release when the token was made.
    pub checksums: BTreeMap<Platform, Checksum>,
}

/// An event that NOTI has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Undelivered {
    pub id: String,
    /// What is posted, byte for byte.
    pub body: String,
    pub noticed_at: Timestamp,
    /// Failed attempts so far.
    pub attempts: u32,
    pub first_attempt_at: Option<Timestamp>,
    pub due: Timestamp,
}

/// How much is owed to NOTI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub events: u64,
    /// When the oldest of them was noticed.
    pub oldest: Option<Timestamp>,
    /// Those that were given up.
    pub dead: u64,
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeadLetter {
    pub id: String,
    pub event: NodeEvent,
    pub noticed_at: Timestamp,
    pub attempts: u32,
    pub died_at: Timestamp,
    pub reason: String,
}

/// A page of dead letters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeadLetterPage {
    pub letters: Vec<DeadLetter>,
    /// How many the organisation has in all.
    pub total: u64,
}

/// Which events to list.
#[derive(Debug, Clone)]
pub(crate) struct EventQuery {
    pub org: OwnerId,
    pub node: Option<NodeId>,
    /// Those with a larger number.
    pub after: i64,
    pub limit: u64,
}

/// Where a list of events begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Since {
    /// With the oldest that is kept.
    Beginning,
    /// With the next that comes.
    Now,
    /// After the event with this id.
    Event(String),
    /// With the first that happened at this time or later.
    Time(Timestamp),
}

impl Since {
    /// A time, or else an event's id.
    pub(crate) fn parse(text: String) -> Self {
        Timestamp::from_query(&text).map(Self::Time).unwrap_or(Self::Event(text))
    }

    /// Whether this could name an event: `evt_…` as our outbox names them, `msg_…` as others do, or a UUID. Whatever is kept can be named,
    /// too; this tells an event that is gone from a text that never was one.
    pub(crate) fn is_plausible(&self) -> bool {
        let Self::Event(id) = self else { return true };
        let prefixed = id.split_once('_').is_some_and(|(prefix, rest)| {
            !prefix.is_empty() && !rest.is_empty() && prefix.bytes().all(|b| b.is_ascii_alphabetic())
        });
        let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        plain && (prefixed || uuid::Uuid::try_parse(id).is_ok())
    }
}

/// An event that the built-in NOTI received.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Received {
    pub id: String,
    /// Its place in the order in which events were received.
    pub seq: i64,
    pub event: NodeEvent,
}

/// Why the store has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error("an event says what it cannot")]
    Event(#[from] InvalidEvent),
    #[error("the database takes no changes now")]
    Unusable(#[source] Arc<sqlx::Error>),
    #[error("the change was rolled back")]
    RolledBack,
    #[error("the database is closed")]
    Closed,
    #[error("the database could not be brought up to date")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("the database holds something that cannot be read: {what}")]
    Corrupt {
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the database's place cannot be used: {0}")]
    Place(String),
}
