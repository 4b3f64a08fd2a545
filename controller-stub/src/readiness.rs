//! Whether the database takes changes, for `/readyz`.

use std::time::{Duration, Instant};

use tokio::{sync::Mutex, time::timeout};

use crate::{clock, store::Store};

/// Writes to the database to see whether it takes changes; no more often than once in a while,
/// however many ask.
#[derive(Default)]
pub(crate) struct Probe(Mutex<Option<(Instant, Option<&'static str>)>>);

/// What was seen counts for so long.
const FRESH: Duration = Duration::from_secs(1);

/// A change that takes longer is none that one could work with.
const PATIENCE: Duration = Duration::from_secs(2);

const PROBED_AT: &str = "readiness_probed_at";

impl Probe {
    pub(crate) async fn problem(&self, store: &Store) -> Option<&'static str> {
        let mut last = self.0.lock().await;
        if let Some((at, problem)) = *last
            && at.elapsed() < FRESH
        {
            return problem;
        }
        let now = clock::now().to_string();
        let problem = match timeout(PATIENCE, store.put_setting(PROBED_AT, &now)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the database takes no changes");
                Some("the database takes no changes")
            }
            Err(_) => Some("the database takes no change within 2 s"),
        };
        *last = Some((Instant::now(), problem));
        problem
    }
}
