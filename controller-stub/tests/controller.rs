//! The controller from outside: a real server in this process, on a free port and a folder of its
//! own, driven over HTTP and WebSocket as users, installers, workers and NOTI drive it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

#[path = "controller/balancer.rs"]
mod balancer;
#[path = "controller/cluster.rs"]
mod cluster;
#[path = "controller/group.rs"]
mod group;
#[path = "controller/harness.rs"]
mod harness;
#[path = "controller/peers.rs"]
mod peers;

#[path = "controller/inspector.rs"]
mod inspector;
#[path = "controller/schema.rs"]
mod schema;

#[path = "controller/access.rs"]
mod access;
#[path = "controller/admin.rs"]
mod admin;
#[path = "controller/aiwm.rs"]
mod aiwm;
#[path = "controller/alarms.rs"]
mod alarms;
#[path = "controller/api.rs"]
mod api;
#[path = "controller/audit.rs"]
mod audit;
#[path = "controller/conformance.rs"]
mod conformance;
#[path = "controller/dashboards.rs"]
mod dashboards;
#[path = "controller/database.rs"]
mod database;
#[path = "controller/delivery.rs"]
mod delivery;
#[path = "controller/enrolment.rs"]
mod enrolment;
#[path = "controller/fleet.rs"]
mod fleet;
#[path = "controller/gateway.rs"]
mod gateway;
#[path = "controller/hostile.rs"]
mod hostile;
#[path = "controller/idempotency.rs"]
mod idempotency;
#[path = "controller/migrate.rs"]
mod migrate;
#[path = "controller/monitoring.rs"]
mod monitoring;
#[path = "controller/nodes.rs"]
mod nodes;
#[path = "controller/observing.rs"]
mod observing;
#[cfg(feature = "pages")]
#[path = "controller/oidc.rs"]
mod oidc;
#[path = "controller/otlp.rs"]
mod otlp;
#[path = "controller/outbox.rs"]
mod outbox;
#[cfg(feature = "pages")]
#[path = "controller/pages.rs"]
mod pages;
#[path = "controller/postgres.rs"]
mod postgres;
#[path = "controller/program.rs"]
mod program;
#[path = "controller/reference.rs"]
mod reference;
#[path = "controller/restart.rs"]
mod restart;
#[path = "controller/revocation.rs"]
mod revocation;
#[path = "controller/rollouts.rs"]
mod rollouts;
#[path = "controller/rotation.rs"]
mod rotation;
#[path = "controller/scenarios.rs"]
mod scenarios;
#[path = "controller/strangers.rs"]
mod strangers;
#[path = "controller/telemetry.rs"]
mod telemetry;
#[path = "controller/tls.rs"]
mod tls;
#[path = "controller/together.rs"]
mod together;
#[path = "controller/tokens.rs"]
mod tokens;
#[path = "controller/upkeep.rs"]
mod upkeep;
#[path = "controller/webhooks.rs"]
mod webhooks;
