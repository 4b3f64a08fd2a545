//! Nodes that are registered together, each with its first token: all of them in one transaction, or none.

use sqlx::{AnyConnection, Row};

use super::{
    database::Store,
    error::StoreError,
    nodes::{self, RecordedStep},
    tokens::{self, IssuedToken},
    writer::Write,
};
use crate::node::Node;

/// A node that is registered, with its first token.
#[derive(Debug, Clone)]
pub(crate) struct Newcomer {
    pub node: Node,
    /// Its registration.
    pub step: RecordedStep,
    pub token: IssuedToken,
}

impl Store {
    /// Keeps nodes that are registered together, each with its first token, unless nodes of the same organisation that are in service have
    /// names of theirs: then nothing is kept, and those names are the answer.
    pub(crate) async fn enrol_nodes(&self, newcomers: &[Newcomer]) -> Result<Vec<String>, StoreError> {
        self.writer.write(Enrol::new(newcomers)?).await
    }
}

/// Keeps the newcomers, unless nodes that are in service have names of theirs: then it answers those names.
struct Enrol {
    newcomers: Vec<(nodes::Add, tokens::Add)>,
}

impl Enrol {
    fn new(newcomers: &[Newcomer]) -> Result<Self, StoreError> {
        let writes = newcomers
            .iter()
            .map(|it| Ok((nodes::Add::new(&it.node, &it.step)?, tokens::Add(it.token.clone()))));
        Ok(Self { newcomers: writes.collect::<Result<_, StoreError>>()? })
    }
}

impl Write for Enrol {
    type Answer = Vec<String>;

    async fn run(&self, connection: &mut AnyConnection) -> Result<Vec<String>, StoreError> {
        let mut taken = Vec::new();
        for (add, _) in &self.newcomers {
            let node = add.node();
            let others = sqlx::query(
                "SELECT COUNT(*) FROM nodes WHERE org_id = $1 AND name = $2 AND status <> 'inactive'",
            )
            .bind(node.owner.org_id.as_str())
            .bind(&node.name)
            .fetch_one(&mut *connection)
            .await?;
            if others.try_get::<i64, _>(0)? > 0 {
                taken.push(node.name.clone());
            }
        }
        if taken.is_empty() {
            for (node, token) in &self.newcomers {
                node.run(connection).await?;
                token.run(connection).await?;
            }
        }
        Ok(taken)
    }
}
