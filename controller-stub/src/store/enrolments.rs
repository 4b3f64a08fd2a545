//! Nodes that are registered together, each with its first token: all of them in one transaction, or none.

use sqlx::AnyConnection;

use super::{
    database::Store,
    error::StoreError,
    naming,
    nodes::{self, RecordedStep},
    record::Subject,
    tokens::{self, IssuedToken},
    writer::Write,
};
use crate::node::Node;

/// A node that is registered, and its first token if it is to have one at once.
#[derive(Debug, Clone)]
pub(crate) struct Newcomer {
    pub node: Node,
    /// Its registration.
    pub step: RecordedStep,
    pub token: Option<IssuedToken>,
}

impl Store {
    /// Keeps nodes that are registered together, each with its first token, unless nodes of the
    /// same organisation that are in service have names of theirs: then nothing is kept, and those
    /// names are the answer.
    pub(crate) async fn enrol_nodes(&self, newcomers: &[Newcomer]) -> Result<Vec<String>, StoreError> {
        self.writer.write(Enrol::new(newcomers)?).await
    }
}

/// Keeps the newcomers, unless nodes that are in service have names of theirs: then it answers those names.
struct Enrol {
    newcomers: Vec<(nodes::Add, Option<tokens::Add>)>,
}

impl Enrol {
    fn new(newcomers: &[Newcomer]) -> Result<Self, StoreError> {
        let writes = newcomers
            .iter()
            .map(|it| Ok((nodes::Add::new(&it.node, &it.step)?, it.token.clone().map(tokens::Add))));
        Ok(Self { newcomers: writes.collect::<Result<_, StoreError>>()? })
    }
}

impl Write for Enrol {
    type Answer = Vec<String>;

    async fn run(&self, connection: &mut AnyConnection) -> Result<Vec<String>, StoreError> {
        let mut taken = Vec::new();
        for (add, _) in &self.newcomers {
            let node = add.node();
            if naming::name_is_taken(connection, node).await? {
                taken.push(node.name.clone());
            }
        }
        if taken.is_empty() {
            for (node, token) in &self.newcomers {
                node.run(connection).await?;
                if let Some(token) = token {
                    token.run(connection).await?;
                }
            }
        }
        Ok(taken)
    }

    fn changed(taken: &Vec<String>) -> bool {
        taken.is_empty()
    }

    fn subjects(&self) -> Vec<Subject> {
        let subject = |(add, token): &(nodes::Add, Option<tokens::Add>)| Subject {
            node: add.node().id.clone(),
            target: token.as_ref().map_or_else(|| add.node().name.clone(), |token| token.0.jti.clone()),
        };
        self.newcomers.iter().map(subject).collect()
    }
}
