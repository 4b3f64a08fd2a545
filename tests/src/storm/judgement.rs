//! The verdict: the audit trail in the database is the truth, and what NOTI was told has to be the same.

use std::collections::{HashMap, HashSet};

use aio_protocol::{
    ids::NodeId,
    node::NodeStatus,
    time::Timestamp,
    transition::{Decision, Trigger, decide},
};
use anyhow::{Context, Result, bail, ensure};
use sqlx::{AnyConnection, Connection, Row, any::AnyRow};

use super::noti::Record;

/// What the database says.
pub(super) struct Ledger {
    moves: HashMap<NodeId, Vec<Move>>,
    statuses: HashMap<NodeId, NodeStatus>,
    /// The events that are owed, by node in their order.
    owed: HashMap<NodeId, Vec<String>>,
    dead: i64,
}

/// A row of the audit trail.
struct Move {
    from: Option<NodeStatus>,
    to: NodeStatus,
    cause: String,
    at: Timestamp,
}

impl Ledger {
    /// Reads the database as it is at one moment.
    pub(super) fn read(database: &str) -> Result<Self> {
        in_database(database, async |connection| {
            let mut ledger =
                Self { moves: HashMap::new(), statuses: HashMap::new(), owed: HashMap::new(), dead: 0 };
            let moves = "SELECT node_id, from_status, to_status, cause, at FROM transitions \
                 WHERE cause NOT IN ('alarm_raised', 'alarm_resolved', 'health_changed') ORDER BY node_id, seq";
            for row in sqlx::query(moves).fetch_all(&mut *connection).await? {
                let from = row.get::<Option<String>, _>(1).as_deref().map(status).transpose()?;
                let to = status(row.get::<String, _>(2))?;
                let at = Timestamp::from_millis(row.get(4));
                ledger.moves.entry(node(&row)?).or_default().push(Move { from, to, cause: row.get(3), at });
            }
            for row in sqlx::query("SELECT id, status FROM nodes").fetch_all(&mut *connection).await? {
                ledger.statuses.insert(node(&row)?, status(row.get::<String, _>(1))?);
            }
            let owed = "SELECT node_id, id FROM outbox ORDER BY node_id, seq";
            for row in sqlx::query(owed).fetch_all(&mut *connection).await? {
                ledger.owed.entry(node(&row)?).or_default().push(row.get(1));
            }
            let dead = sqlx::query("SELECT COUNT(*) FROM dead_letters").fetch_one(&mut *connection).await?;
            ledger.dead = dead.get(0);
            if connection.backend_name() == "SQLite" {
                let check = sqlx::query("PRAGMA quick_check").fetch_one(connection).await?;
                ensure!(check.get::<String, _>(0) == "ok", "the database is damaged");
            }
            Ok(ledger)
        })
    }

    /// How many events are owed, beside a controller that runs.
    pub(super) fn outbox_size(database: &str) -> Result<i64> {
        in_database(database, async |connection| {
            Ok(sqlx::query("SELECT COUNT(*) FROM outbox").fetch_one(connection).await?.get(0))
        })
    }

    pub(super) fn transitions(&self) -> usize {
        self.moves.values().map(Vec::len).sum()
    }

    /// What NOTI was told of the moves that this knows, where others were made since.
    pub(super) fn known_of(&self, mut record: Record) -> Record {
        for (node, told) in &mut record.nodes {
            told.truncate(self.moves.get(node).map_or(0, Vec::len));
        }
        record
    }

    /// Every state is one that the table allows, and every event is with NOTI or owed to it.
    pub(super) fn check_after_a_kill(&self, record: &Record) -> Result<()> {
        self.check_moves()?;
        for (node, moves) in &self.moves {
            let told = self.check_told(node, moves, record)?;
            let kept: HashSet<_> =
                record.nodes.get(node).into_iter().flatten().map(|it| it.id.as_str()).collect();
            let owed =
                self.owed.get(node).into_iter().flatten().filter(|id| !kept.contains(id.as_str())).count();
            ensure!(
                told + owed == moves.len(),
                "node {node} made {} moves; NOTI knows {told} and is owed {owed}",
                moves.len()
            );
        }
        Ok(())
    }

    /// Every state is one that the table allows, and NOTI knows every move, once and in order, and no other.
    pub(super) fn check_all_delivered(&self, record: &Record) -> Result<()> {
        self.check_moves()?;
        ensure!(self.dead == 0, "{} events were given up", self.dead);
        if let Some(wrong) = &record.wrong {
            bail!("{wrong}");
        }
        for (node, moves) in &self.moves {
            let told = self.check_told(node, moves, record)?;
            ensure!(told == moves.len(), "node {node} made {} moves, and NOTI knows {told}", moves.len());
        }
        ensure!(
            record.events == self.transitions(),
            "NOTI was told of {} moves, and {} were made",
            record.events,
            self.transitions()
        );
        Ok(())
    }

    /// What NOTI was told of a node is the beginning of its moves. Says how many.
    fn check_told(&self, node: &NodeId, moves: &[Move], record: &Record) -> Result<usize> {
        let told = record.nodes.get(node).map(Vec::as_slice).unwrap_or_default();
        ensure!(told.len() <= moves.len(), "NOTI was told of moves that node {node} never made");
        for (index, (told, made)) in told.iter().zip(moves).enumerate() {
            ensure!(
                (told.status, told.at) == (made.to, made.at),
                "of node {node}, move {index} was to {} at {}, and NOTI was told {} at {}",
                made.to,
                made.at,
                told.status,
                told.at
            );
        }
        Ok(told.len())
    }

    fn check_moves(&self) -> Result<()> {
        for (node, moves) in &self.moves {
            let mut status = None;
            for made in moves {
                ensure!(made.from == status, "node {node} moved from {:?} and was {status:?}", made.from);
                ensure!(
                    is_allowed(made),
                    "node {node} moved from {:?} to {} by {}",
                    made.from,
                    made.to,
                    made.cause
                );
                status = Some(made.to);
            }
            let is = self.statuses.get(node).copied();
            ensure!(is == status, "node {node} is {is:?} and moved last to {status:?}");
        }
        ensure!(self.statuses.len() == self.moves.len(), "a node has no audit trail");
        Ok(())
    }
}

/// Whether the table has this move: also as one of several that a trigger makes.
fn is_allowed(made: &Move) -> bool {
    let Some(from) = made.from else { return made.to == NodeStatus::Pending && made.cause == "registered" };
    let triggers = Trigger::ALL.into_iter().filter(|trigger| trigger.as_str() == made.cause);
    let mut decisions = triggers.flat_map(|trigger| NodeStatus::ALL.map(|status| decide(status, trigger)));
    decisions.any(|decision| match decision {
        Decision::Moved(steps) => steps.iter().any(|step| (step.from, step.to) == (from, made.to)),
        Decision::Unchanged | Decision::Refused => false,
    })
}

fn node(row: &AnyRow) -> Result<NodeId> {
    Ok(row.get::<String, _>(0).parse()?)
}

fn status(text: impl AsRef<str>) -> Result<NodeStatus> {
    NodeStatus::parse(text.as_ref()).with_context(|| format!("{} is no status", text.as_ref()))
}

fn in_database<T>(database: &str, read: impl AsyncFnOnce(&mut AnyConnection) -> Result<T>) -> Result<T> {
    sqlx::any::install_default_drivers();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connection = AnyConnection::connect(database).await?;
        // Others may write meanwhile.
        let begin = match connection.backend_name() {
            "SQLite" => "BEGIN",
            _ => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        sqlx::query(begin).execute(&mut connection).await?;
        let read = read(&mut connection).await;
        connection.close().await?;
        read
    })
}

#[cfg(test)]
mod tests {
    use super::{super::noti::Kept, *};
    use NodeStatus::{Error, Installing, Pending};

    fn node() -> NodeId {
        NodeId::from_bytes([1; 12])
    }

    fn moves() -> Vec<Move> {
        let made = |at, from, to, cause: &str| Move {
            from,
            to,
            cause: cause.to_owned(),
            at: Timestamp::from_millis(at),
        };
        vec![
            made(1, None, Pending, "registered"),
            made(2, Some(Pending), Installing, "installation_started"),
            made(3, Some(Installing), Error, "installation_failed"),
        ]
    }

    fn ledger(moves: Vec<Move>, owed: &[&str]) -> Ledger {
        let status = moves.last().unwrap().to;
        Ledger {
            moves: HashMap::from([(node(), moves)]),
            statuses: HashMap::from([(node(), status)]),
            owed: HashMap::from([(node(), owed.iter().map(|id| (*id).to_owned()).collect())]),
            dead: 0,
        }
    }

    /// What NOTI has when it was told of these moves, in this order.
    fn told(moves: &[Move], order: &[usize]) -> Record {
        let kept = |index: &usize| Kept {
            id: format!("evt_{index}"),
            status: moves[*index].to,
            at: moves[*index].at,
            answered: std::time::Instant::now(),
        };
        let kept: Vec<_> = order.iter().map(kept).collect();
        Record { events: kept.len(), nodes: HashMap::from([(node(), kept)]), ..Record::default() }
    }

    #[test]
    fn what_is_lost_doubled_or_out_of_order_is_found() {
        let whole = ledger(moves(), &[]);
        whole.check_all_delivered(&told(&moves(), &[0, 1, 2])).unwrap();
        for order in [&[0, 1][..], &[0, 2], &[1, 2], &[0, 2, 1], &[0, 1, 1, 2], &[0, 1, 2, 2], &[]] {
            assert!(whole.check_all_delivered(&told(&moves(), order)).is_err(), "{order:?}");
        }
    }

    #[test]
    fn after_a_kill_what_noti_does_not_know_must_be_owed() {
        ledger(moves(), &["evt_1", "evt_2"]).check_after_a_kill(&told(&moves(), &[0])).unwrap();
        // It answered, and the controller was killed before it took note.
        ledger(moves(), &["evt_0", "evt_1", "evt_2"]).check_after_a_kill(&told(&moves(), &[0])).unwrap();
        for owed in [&["evt_2"][..], &["evt_0", "evt_2"], &[]] {
            assert!(ledger(moves(), owed).check_after_a_kill(&told(&moves(), &[0])).is_err(), "{owed:?}");
        }
    }

    #[test]
    fn a_move_that_the_table_does_not_have_is_found() {
        let check = |change: fn(&mut Vec<Move>)| {
            let mut moves = moves();
            change(&mut moves);
            ledger(moves, &[]).check_moves()
        };
        check(|_| {}).unwrap();
        assert!(check(|moves| moves[2].to = NodeStatus::Online).is_err());
        assert!(check(|moves| moves[2].cause = "worker_welcomed".to_owned()).is_err());
        assert!(check(|moves| drop(moves.remove(1))).is_err());
        assert!(check(|moves| drop(moves.remove(0))).is_err());
        let mut elsewhere = ledger(moves(), &[]);
        elsewhere.statuses.insert(node(), Pending);
        assert!(elsewhere.check_moves().is_err());
    }
}
