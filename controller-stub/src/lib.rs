//! AIWM's token, status and NOTI endpoints: the double that tests run against, and the controller of a small
//! deployment. The status table itself is `aio_protocol::transition`; here it is driven, stored and told.

pub mod cli;
pub mod commands;
pub mod config;
pub mod logging;
pub mod serve;

pub use api::addresses;

mod aiwm;
mod alarms;
mod api;
mod app;
mod brake;
mod census;
mod clock;
mod deployment;
mod descriptors;
mod elsewhere;
mod enrolment;
mod exporter;
mod failures;
#[cfg(test)]
mod fuzz;
mod gateway;
mod group;
mod install_script;
mod labels;
mod leases;
mod lifecycle;
mod listener;
mod loopback;
pub mod memory;
mod node;
mod noti;
#[cfg(feature = "pages")]
mod oidc;
mod outbox;
#[cfg(feature = "pages")]
mod pages;
mod random;
mod rate;
mod readiness;
mod releases;
mod retention;
mod revocations;
mod rollout;
mod rollouts;
mod rotation;
mod secrets;
mod store;
mod tasks;
mod telemetry;
mod tls;
mod tokens;
mod watch;
mod webhooks;
mod websocket;
