//! Alarms and silences, from the command line. A server alone raises and resolves them.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::{COMMAND_LINE, CommandError, For, nodes::find, on_command_line, open};
use crate::{
    api::alarms::{AlarmView, MAX_SILENCES, SilenceView, made, too_many_silences},
    clock,
    config::Config,
    store::{Acknowledged, AlarmQuery, Window},
};

/// The latest alarms that a list shows.
const MAX_LISTED: u64 = 1_000;

/// What a silence is of.
pub(crate) enum SilenceOf {
    /// A node's name or id.
    Node(String),
    Label(String),
}

/// The alarms that are not over, or those that are. The controller's own belong to them.
pub(crate) async fn list_alarms(
    config: &Config,
    whose: For,
    resolved: bool,
) -> Result<Vec<AlarmView>, CommandError> {
    let store = open(config).await?;
    let org = whose.or_default(&store).await?.org_id;
    let window = Window { offset: 0, limit: MAX_LISTED };
    let query = AlarmQuery { org, operator: true, resolved, node: None, kind: None, window };
    Ok(store.alarms(&query).await?.0.into_iter().map(Into::into).collect())
}

/// Says that an alarm was seen.
pub(crate) async fn acknowledge_alarm(
    config: &Config,
    whose: For,
    id: Uuid,
) -> Result<AlarmView, CommandError> {
    let store = open(config).await?;
    let org = whose.or_default(&store).await?.org_id;
    let no_such = || CommandError::NoAlarm(id);
    let detail = Some(json!({ "alarm": id }));
    let recorded = on_command_line(&store, &org, "alarm.acknowledge", None, detail);
    if recorded.acknowledge_alarm(&org, true, id, clock::now(), COMMAND_LINE).await? == Acknowledged::NoSuch {
        return Err(no_such());
    }
    store.alarm(&org, true, id).await?.map(Into::into).ok_or_else(no_such)
}

/// Silences a node, or the nodes with a label.
pub(crate) async fn add_silence(
    config: &Config,
    whose: For,
    of: SilenceOf,
    lasts: Duration,
    reason: &str,
) -> Result<SilenceView, CommandError> {
    let store = open(config).await?;
    let org = whose.or_default(&store).await?.org_id;
    let (node, label) = match of {
        SilenceOf::Node(named) => (Some(find(&store, &org, &named).await?.id), None),
        SilenceOf::Label(label) => (None, Some(label)),
    };
    let silence = made(&org, (node.clone(), label), lasts, reason, COMMAND_LINE.to_owned());
    let silence = silence.map_err(CommandError::Silence)?;
    let detail = Some(json!({ "silence": silence.id, "reason": silence.reason }));
    let recorded = on_command_line(&store, &org, "silence.add", node.as_ref(), detail);
    if recorded.add_silence(silence.clone(), MAX_SILENCES).await? {
        Ok(silence.into())
    } else {
        Err(CommandError::Silence(too_many_silences()))
    }
}
