//! What must outlive the process. The SQL is one text for SQLite and PostgreSQL, and stands beside each table
//! with what is read and changed there. The store decides nothing about nodes; it keeps a node's change, its
//! audit rows and its events together or not at all. All changes go through one writer, which says how a new
//! one is added.

mod aiwm;
mod alarm_timeline;
mod alarms;
mod audit;
mod connections;
mod controllers;
mod database;
mod dead_letters;
mod dialect;
mod enrolments;
mod error;
mod expiry;
mod fleet;
mod groups;
mod healths;
mod idempotency;
mod inbox;
mod membership;
mod naming;
mod node_list;
mod nodes;
#[cfg(feature = "pages")]
mod numbers;
mod offers;
mod outbox;
mod record;
mod reserve;
mod rollout_moves;
mod rollouts;
mod rows;
#[cfg(feature = "pages")]
mod service;
#[cfg(feature = "pages")]
mod sessions;
mod settings;
mod shares;
mod signals;
mod silences;
mod telemetry;
#[cfg(test)]
pub(crate) mod testing;
mod tokens;
mod transfer;
mod transitions;
mod user_tokens;
mod webhook_events;
mod webhooks;
mod writer;

pub(crate) use aiwm::{AiwmNode, SecretKept};
pub(crate) use alarms::{Acknowledged, Alarm, AlarmChange, AlarmQuery, Telling, WatchedNode};
pub(crate) use audit::{AuditQuery, AuditRecord};
pub(crate) use controllers::Controller;
pub(crate) use database::Store;
pub(crate) use dead_letters::{DeadLetter, DeadLetterPage};
pub(crate) use dialect::{Place, Serving};
pub(crate) use enrolments::Newcomer;
pub(crate) use error::{Problem, StoreError};
pub(crate) use expiry::Expirable;
pub(crate) use fleet::FleetNode;
pub(crate) use idempotency::{KeptAnswer, Reserved};
pub(crate) use inbox::{EventQuery, Received, Since};
pub(crate) use membership::Membership;
pub(crate) use naming::Described;
pub(crate) use node_list::{NodeFilter, NodeQuery, Position, Sort, SortKey};
pub(crate) use nodes::{Admission, RecordedStep};
#[cfg(feature = "pages")]
pub(crate) use numbers::{DeliveryNumbers, FleetNumbers};
pub(crate) use offers::{History, Replacement};
pub(crate) use outbox::Undelivered;
pub(crate) use record::AuditEntry;
pub(crate) use rollout_moves::Started;
pub(crate) use rollouts::{ListedMember, OfferOfNode};
pub(crate) use rows::Window;
#[cfg(feature = "pages")]
pub(crate) use service::Service;
#[cfg(feature = "pages")]
pub(crate) use sessions::{Ended, LoginLink, Once, Session};
pub(crate) use signals::Signal;
pub(crate) use silences::{Silence, Silenced};
pub(crate) use tokens::{IssuedToken, KnownToken};
pub(crate) use transfer::transfer;
pub(crate) use transitions::Transition;
pub(crate) use webhook_events::Follows;
pub(crate) use webhooks::{Owed, Webhook, WebhookAttempt};
