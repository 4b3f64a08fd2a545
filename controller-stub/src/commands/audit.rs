//! The audit trail, from the command line: all of it that was asked for, to be kept elsewhere.

use std::io::Write;

use aio_protocol::{ids::NodeId, time::Timestamp};

use super::{CommandError, For, open};
use crate::{
    api::audit::{CSV_HEAD, Record},
    config::Config,
    store::AuditQuery,
};

/// So many records are read at a time.
const PAGE: u64 = 1000;

/// Which records; what is not said is no condition.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// What concerns this node.
    pub node: Option<NodeId>,
    /// What they did: `user:<id>` or `command line`.
    pub actor: Option<String>,
    /// What was asked for then or later.
    pub since: Option<Timestamp>,
    /// What was asked for before.
    pub until: Option<Timestamp>,
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditFormat {
    /// A JSON object a line.
    Ndjson,
    /// A table (RFC 4180).
    Csv,
}

/// Writes an organisation's audit trail, newest first.
pub async fn audit(
    config: &Config,
    whose: For,
    filter: AuditFilter,
    format: AuditFormat,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    let store = open(config).await?;
    let org = whose.or_default(&store).await?.org_id;
    let AuditFilter { node, actor, since, until } = filter;
    let mut query = AuditQuery { org, node, actor, action: None, since, until, before: None, limit: PAGE };
    if format == AuditFormat::Csv {
        out.write_all(CSV_HEAD.as_bytes())?;
    }
    loop {
        let records = store.audit(&query).await?;
        query.before = records.last().map(|last| last.seq);
        let more = records.len() as u64 == PAGE;
        for record in records.into_iter().map(Record::from) {
            let line = if format == AuditFormat::Csv { record.as_csv() } else { record.as_line() };
            out.write_all(line.as_bytes())?;
        }
        if !more {
            return Ok(out.flush()?);
        }
    }
}
