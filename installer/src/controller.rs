//! The controller: the route to it, what it is asked and told, and when a worker is online with it.

pub(crate) mod aiwm;
pub(crate) mod calls;
pub(crate) mod http;
pub(crate) mod online;
pub(crate) mod report;
pub(crate) mod route;
pub(crate) mod undelivered;
