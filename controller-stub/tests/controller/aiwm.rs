//! AIWM's dialect, line by line as its contract has it: the way in, the REST, the socket.

#[path = "aiwm/gateway.rs"]
mod gateway;
#[path = "aiwm/peer.rs"]
mod peer;
#[path = "aiwm/rest.rs"]
mod rest;
