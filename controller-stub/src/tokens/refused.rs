//! Node tokens that were refused lately. They stay refused, so a flood of them never reaches the database.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aio_protocol::{claims::NodeClaims, ids::NodeId};

/// Node tokens that were refused.
#[derive(Default)]
pub(crate) struct Refused(Mutex<HashMap<Shown, Refusal>>);

/// A node's token: whose, which, and since when. Another issuer may use a `jti` twice.
type Shown = (NodeId, String, i64);

/// How many refused tokens are kept before all are forgotten.
const MAX_REFUSED: usize = 10_000;

/// Why a node token that was verified is not accepted, now or ever.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal {
    Inactive,
    Revoked,
    /// A newer token took its place, so whoever shows it has a copy.
    Replaced,
}

impl Refused {
    pub(crate) fn get(&self, claims: &NodeClaims) -> Option<Refusal> {
        self.table().get(&shown(claims)).copied()
    }

    pub(crate) fn put(&self, claims: &NodeClaims, refusal: Refusal) {
        let mut table = self.table();
        if table.len() >= MAX_REFUSED {
            table.clear();
        }
        table.insert(shown(claims), refusal);
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Shown, Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shown(claims: &NodeClaims) -> Shown {
    (claims.sub.clone(), claims.jti.clone(), claims.issued_at().as_millis())
}
