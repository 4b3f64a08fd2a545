//! What one of several controllers has to be told of nodes that it holds. A signal is written with the change
//! that owes it and says only where to look; what is so, its reader asks the database.

use std::net::IpAddr;

use aio_protocol::ids::NodeId;
use sqlx::{AnyConnection, Row};

use super::{
    database::Store,
    error::StoreError,
    rows::{json, node_id},
    writer::Write,
};

/// Signals that are taken at once.
const BATCH: i64 = 500;

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Another controller has taken the node.
    Moved,
    /// There may be something to tell the node's worker.
    Told,
    /// Another machine, at this address, claims to be the node, and is refused by who signals it.
    Cloned(IpAddr),
}

/// What stands before the address.
const CLONED: &str = "cloned ";

impl Signal {
    fn to_text(self) -> String {
        match self {
            Self::Moved => "moved".to_owned(),
            Self::Told => "told".to_owned(),
            Self::Cloned(address) => format!("{CLONED}{address}"),
        }
    }

    /// One that is not known here is of a later version.
    fn parse(text: &str) -> Option<Self> {
        match text {
            "moved" => Some(Self::Moved),
            "told" => Some(Self::Told),
            _ => Some(Self::Cloned(text.strip_prefix(CLONED)?.parse().ok()?)),
        }
    }
}

impl Store {
    /// Takes signals of a controller; none when there are none.
    pub(crate) async fn take_signals(&self, number: i64) -> Result<Vec<(NodeId, Signal)>, StoreError> {
        let waiting = sqlx::query("SELECT 1 FROM signals WHERE controller = $1 LIMIT 1").bind(number);
        if waiting.fetch_optional(&mut *self.pool.take().await?).await?.is_none() {
            return Ok(Vec::new());
        }
        self.writer.write(Take(number)).await
    }

    /// Signals that there may be something to tell the workers of these nodes, to whoever holds them but
    /// `number`.
    pub(crate) async fn signal_told(&self, number: i64, nodes: Vec<NodeId>) -> Result<(), StoreError> {
        self.writer.write(Tell { number, signal: Signal::Told, nodes: json("nodes", &nodes)? }).await
    }

    /// Signals that another machine claims to be a node, to whoever holds it but `number`.
    pub(crate) async fn signal_cloned(
        &self,
        number: i64,
        node: &NodeId,
        address: IpAddr,
    ) -> Result<(), StoreError> {
        let nodes = json("nodes", &[node])?;
        self.writer.write(Tell { number, signal: Signal::Cloned(address), nodes }).await
    }
}

/// Tells whoever holds a node that another takes it, in the transaction of `connection`.
pub(super) async fn moved(
    connection: &mut AnyConnection,
    node: &NodeId,
    holder: i64,
) -> Result<(), StoreError> {
    let moved = "INSERT INTO signals (controller, node_id, kind) SELECT number, $2, $3 FROM controllers \
                 WHERE number = $1 ON CONFLICT DO NOTHING";
    sqlx::query(moved)
        .bind(holder)
        .bind(node.as_str())
        .bind(Signal::Moved.to_text())
        .execute(connection)
        .await?;
    Ok(())
}

struct Take(i64);

impl Write for Take {
    type Answer = Vec<(NodeId, Signal)>;

    async fn run(&self, connection: &mut AnyConnection) -> Result<Self::Answer, StoreError> {
        let rows = sqlx::query("SELECT node_id, kind FROM signals WHERE controller = $1 LIMIT $2")
            .bind(self.0)
            .bind(BATCH)
            .fetch_all(&mut *connection)
            .await?;
        let mut signals = Vec::new();
        for row in &rows {
            let (node, kind) = (node_id(row)?, row.try_get::<String, _>(1)?);
            sqlx::query("DELETE FROM signals WHERE controller = $1 AND node_id = $2 AND kind = $3")
                .bind(self.0)
                .bind(node.as_str())
                .bind(&kind)
                .execute(&mut *connection)
                .await?;
            signals.extend(Signal::parse(&kind).map(|signal| (node, signal)));
        }
        Ok(signals)
    }

    fn changed(signals: &Self::Answer) -> bool {
        !signals.is_empty()
    }
}

struct Tell {
    number: i64,
    signal: Signal,
    /// The ids, in JSON.
    nodes: String,
}

impl Write for Tell {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO signals (controller, node_id, kind) SELECT held_by, nodes.id, $3 \
             FROM json_each($1) AS named JOIN nodes ON nodes.id = named.value \
             WHERE held_by <> $2 AND held_by IN (SELECT number FROM controllers) ON CONFLICT DO NOTHING",
        )
        .bind(&self.nodes)
        .bind(self.number)
        .bind(self.signal.to_text())
        .execute(connection)
        .await?;
        Ok(())
    }
}
