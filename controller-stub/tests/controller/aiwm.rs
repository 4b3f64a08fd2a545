//! AIWM's dialect, line by line as its contract has it: the way in, the REST, the socket.

#[path = "aiwm/double.rs"]
mod double;
#[path = "aiwm/gateway.rs"]
mod gateway;
#[path = "aiwm/peer.rs"]
mod peer;
#[path = "aiwm/reference.rs"]
mod reference;
#[path = "aiwm/rest.rs"]
mod rest;
