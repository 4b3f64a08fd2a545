//! What people call a node: its name, which no other node in service of its organisation has, the
//! natural order of names, and its labels.

use sqlx::{AnyConnection, Row};

use super::{
    database::Store,
    error::StoreError,
    rows::{count, json},
    writer::Write,
};
use crate::{labels::natural_key, node::Node};

impl Store {
    /// Keeps a node that was renamed or labelled otherwise; its status is left alone.
    pub(crate) async fn describe_node(&self, node: &Node, renamed: bool) -> Result<Described, StoreError> {
        let labels = json("labels", &node.labels)?;
        let node = Node { system_info: None, ..node.clone() };
        self.writer.write(Describe { node, labels, renamed }).await
    }

    /// Fills in what a migration could not: the order of names that were there before.
    pub(super) async fn fill_name_keys(&self) -> Result<(), StoreError> {
        let rows = sqlx::query("SELECT id, name FROM nodes WHERE name_key = ''")
            .fetch_all(&mut *self.pool.take().await?)
            .await?;
        if rows.is_empty() {
            return Ok(());
        }
        let named = rows.iter().map(|row| Ok((row.try_get(0)?, natural_key(row.try_get(1)?))));
        self.writer.write(FillNameKeys(named.collect::<Result<_, StoreError>>()?)).await
    }
}

/// Whether a node in service of the same organisation has a name.
pub(super) async fn name_is_taken(connection: &mut AnyConnection, node: &Node) -> Result<bool, StoreError> {
    let others = sqlx::query(
        "SELECT COUNT(*) FROM nodes WHERE org_id = $1 AND name = $2 AND status <> 'inactive' AND id <> $3",
    )
    .bind(node.owner.org_id.as_str())
    .bind(&node.name)
    .bind(node.id.as_str())
    .fetch_one(connection)
    .await?;
    Ok(count(&others, 0)? > 0)
}

/// What came of describing a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Described {
    Done,
    /// Another node in service has the name.
    NameTaken,
    /// Somebody else saved the node since it was read.
    Outdated,
}

struct Describe {
    node: Node,
    labels: String,
    /// Whether the name has to be looked for among the others.
    renamed: bool,
}

impl Write for Describe {
    type Answer = Described;

    async fn run(&self, connection: &mut AnyConnection) -> Result<Described, StoreError> {
        let Self { node, labels, renamed } = self;
        if *renamed && name_is_taken(connection, node).await? {
            return Ok(Described::NameTaken);
        }
        let saved = sqlx::query(
            "UPDATE nodes SET name = $3, name_key = $4, labels = $5, version = version + 1 WHERE id = $1 AND version = $2",
        )
        .bind(node.id.as_str())
        .bind(node.version)
        .bind(&node.name)
        .bind(natural_key(&node.name))
        .bind(labels)
        .execute(connection)
        .await?;
        Ok(if saved.rows_affected() == 0 { Described::Outdated } else { Described::Done })
    }

    fn changed(described: &Described) -> bool {
        *described == Described::Done
    }
}

struct FillNameKeys(Vec<(String, String)>);

impl Write for FillNameKeys {
    type Answer = ();

    async fn run(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        for (id, key) in &self.0 {
            let fill = sqlx::query("UPDATE nodes SET name_key = $2 WHERE id = $1").bind(id).bind(key);
            fill.execute(&mut *connection).await?;
        }
        Ok(())
    }
}
