//! What every request and every connection needs at hand.

use std::{sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    enrolment::Enroller,
    gateway::{admission::Admission, registry::Registry},
    lifecycle::Lifecycle,
    noti::Noti,
    store::Store,
};

pub(crate) struct App {
    pub store: Arc<dyn Store>,
    pub lifecycle: Lifecycle,
    pub enroller: Enroller,
    pub registry: Registry,
    pub admission: Admission,
    pub noti: Noti,
    /// How long a connection may go without registering.
    pub register_timeout: Duration,
    /// How long a socket may outlive its token.
    pub token_grace: Duration,
    /// Connections live outside the HTTP server's care; here they are tracked.
    pub connections: TaskTracker,
    /// Ends everything.
    pub stop: CancellationToken,
}
