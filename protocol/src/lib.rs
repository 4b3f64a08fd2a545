//! Every word that both ends share: wire messages, NOTI events, node status and its transitions, token
//! claims, error codes, ids and release names; and AIWM's own dialect. Pure by design: no runtime, files,
//! clock, randomness or environment.

pub mod aiwm;
pub mod api;
pub mod claims;
pub mod container;
pub mod dashboard;
pub mod error_code;
pub mod event;
pub mod failure;
pub mod ids;
pub mod installation;
pub mod inventory;
pub mod left_out;
pub mod node;
pub mod release;
pub mod retry_after;
#[cfg(feature = "openapi")]
pub mod schema;
pub mod service;
pub mod snapshot;
pub mod sources;
pub mod telemetry;
pub mod text;
pub mod time;
pub mod transition;
pub mod update;
pub mod wire;
