//! The wall clock, for what people and other machines read. What must not jump (leases, pings) uses
//! `Instant`.

use std::time::SystemTime;

use aio_protocol::time::Timestamp;

pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}
