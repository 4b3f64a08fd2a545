//! Closes the connections of nodes whose tokens were revoked by another process: the command line, or another
//! controller.
//! The API closes them at once.

use std::{sync::Arc, time::Duration};

use aio_protocol::wire::close;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{app::App, store::StoreError, tasks::Pulse};

/// Interval between two looks at the database.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks until `stop`.
pub(crate) async fn run(app: Arc<App>, pulse: Pulse, stop: CancellationToken) {
    let mut look = interval(INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(look.tick()).await.is_some() {
        let _turn = pulse.turn();
        if let Err(error) = close_revoked(&app).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "revoked tokens could not be looked for"
            );
        }
    }
}

async fn close_revoked(app: &App) -> Result<(), StoreError> {
    for id in app.store.connected_without_token(app.membership.number()).await? {
        tracing::info!(node = %id, "a worker's connection ends, because its tokens were revoked");
        let turn = app.lifecycle.turn(&id).await;
        app.registry.close(&id, close::TOKEN_ENDED);
        if let Err(error) = turn.disconnect().await {
            tracing::warn!(node = %id, error = &error as &dyn std::error::Error, "the end of a connection could not be noted");
        }
    }
    Ok(())
}
