//! How a node stands with updates: what it tells its controller when it registers and the CLI over
//! the status socket, and what it asks of root over root's socket. The controller goes by this
//! state alone: an acknowledgement says that a message came, not what became of it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    release::{Checksum, ReleaseVersion},
    text::bounded,
    time::Timestamp,
};

/// The capability of a worker that can update itself.
pub const UPDATE_CAPABILITY: &str = "update.v1";

/// From a goodbye for an update to the node's return; until then it counts as online.
pub const EXPECTED_BACK_SECONDS: u64 = 30;

/// Who changes the version of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ManagedBy {
    /// The controller: the node was installed with `--auto-update`, or root has switched it on.
    Controller,
    /// A person at the machine. The node is told what there is where `notify` is on.
    #[default]
    Operator,
    /// Debian's package manager.
    Package,
}

/// Where a node is on its way to another version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum UpdateState {
    /// Nothing is to be done.
    #[default]
    Idle,
    /// It has an offer and looks at it.
    Offered,
    /// It waits for its window, its GPUs or its operator.
    Deferred,
    /// It brings the release to the machine.
    Staging,
    /// Root has verified the release and put it beside the others.
    Staged,
    /// The new program tries its configuration, token and connection, and changes nothing.
    Rehearsing,
    /// All is prepared; the controller may let it go on (`update.permit`).
    Awaiting,
    /// The new version is being started.
    Switching,
    /// The new version runs and is not yet online.
    Proving,
    /// The new version is online and still watched.
    Probation,
    /// The version before is coming back.
    Reverting,
}

/// How an update ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The new version runs, and its probation is over.
    Succeeded,
    /// The release does not work on this node, which runs the version before again. Not tried
    /// again by itself.
    Faulty,
    /// Nobody can say whether it was the release: the version before was not online either.
    Inconclusive,
    /// The machine lost its power, or somebody stopped it.
    Interrupted,
    /// Nothing was switched: the node would not, or the release did not come to it whole.
    Refused,
    /// An operator went back.
    Reverted,
}

/// The update that ended last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct LastUpdate {
    /// Which.
    pub update_id: Uuid,
    /// The version before.
    pub from: ReleaseVersion,
    /// The version that was to run.
    pub version: ReleaseVersion,
    /// How it ended.
    pub verdict: Verdict,
    /// A code of the catalogue, unless it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "short")]
    pub code: Option<String>,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "sentence")]
    pub message: Option<String>,
    /// When it ended, by the node's clock.
    pub at: Timestamp,
}

/// What a worker says of updates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateReport {
    /// Who changes its version.
    pub managed_by: ManagedBy,
    /// Where it is.
    pub state: UpdateState,
    /// The update that it is on, unless idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_id: Option<Uuid>,
    /// The version that it is on its way to, unless idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<ReleaseVersion>,
    /// Why it waits, or will not, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "sentence")]
    pub reason: Option<String>,
    /// The last update that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<LastUpdate>,
    /// The version that its operator keeps it at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<ReleaseVersion>,
    /// The oldest version that it would go back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<ReleaseVersion>,
    /// The newest index of releases that root has accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index_serial: Option<u64>,
}

impl UpdateReport {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn short<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    bounded::<_, _, 64>(deserializer)
}

fn sentence<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    bounded::<_, _, 512>(deserializer)
}

/// The longest request that root's socket takes, in bytes.
pub const MAX_ROOT_REQUEST_BYTES: usize = 1024;

/// What the daemon asks of root: one line of JSON over `/run/aio-worker-update.sock`, one answer.
/// No path, address or command is in it: what root reads lies where root expects it, and root
/// believes none of it before it has verified its own copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum RootRequest {
    /// Verify what lies in the daemon's state folder, put it beside the other releases, and let the
    /// new program rehearse.
    Stage {
        /// Which update.
        update_id: Uuid,
        /// The version.
        version: ReleaseVersion,
        /// The SHA-256 of its `manifest.json`.
        manifest_sha256: Checksum,
        /// The serial of the index that names it.
        index_serial: u64,
    },
    /// Run what was staged for this update.
    Switch {
        /// Which update.
        update_id: Uuid,
    },
    /// Run the version before again.
    Revert {
        /// Under which id this is told.
        update_id: Uuid,
    },
}

/// What root says of its part, for everybody on the machine to read: the JSON of
/// `/var/lib/aio-worker-update/status.json`, replaced in one step at every change. The daemon goes by it
/// after a restart, when nothing else tells it that it is the new version and is being watched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RootStatus {
    /// What root is doing.
    pub phase: RootPhase,
    /// For which update, unless idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_id: Option<Uuid>,
    /// The version before, unless idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<ReleaseVersion>,
    /// The version after, unless idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<ReleaseVersion>,
    /// When the probation ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The last update that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<LastUpdate>,
    /// How many GPUs the worker had before the update.
    pub gpus: usize,
    /// Restarts that are held against the new version already.
    pub strikes: u32,
    /// The version that `revert` goes back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<ReleaseVersion>,
    /// The oldest version that root would install.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<ReleaseVersion>,
    /// The newest index that root has accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index_serial: Option<u64>,
}

impl RootStatus {
    /// The same without an update under way.
    #[must_use]
    pub fn idle(self) -> Self {
        let Self { last, previous, floor, index_serial, .. } = self;
        Self { last, previous, floor, index_serial, ..Self::default() }
    }
}

/// What root is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootPhase {
    /// Nothing.
    #[default]
    Idle,
    /// It verifies a release.
    Staging,
    /// The new program tries itself.
    Rehearsing,
    /// A release lies ready.
    Staged,
    /// The new version is being started.
    Switching,
    /// The new version runs and is not yet online.
    Proving,
    /// The new version is online and still watched.
    Probation,
    /// The version before is coming back.
    Reverting,
}

/// What root answers: one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum RootAnswer {
    /// It is staged and has rehearsed well.
    Staged,
    /// The switch has begun; the daemon is about to be stopped.
    Switching,
    /// It was refused, or failed.
    Refused {
        /// A code of the catalogue.
        code: String,
        /// Why, in a sentence.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_root_has_one_form_and_fits() {
        let request = RootRequest::Stage {
            update_id: Uuid::max(),
            version: format!("v1.0.0-{}", "x".repeat(57)).parse().unwrap(),
            manifest_sha256: Checksum::of_digest([255; 32]),
            index_serial: u64::MAX,
        };
        let text = serde_json::to_string(&request).unwrap();
        assert!(text.len() < MAX_ROOT_REQUEST_BYTES / 2, "{text}");
        assert_eq!(serde_json::from_str::<RootRequest>(&text).unwrap(), request);
        let id = Uuid::nil();
        for text in [
            format!(r#"{{"ask":"switch","updateId":"{id}","path":"/etc"}}"#),
            format!(r#"{{"ask":"run","updateId":"{id}"}}"#),
            r#"{"ask":"switch","updateId":"../../etc"}"#.to_owned(),
        ] {
            assert!(serde_json::from_str::<RootRequest>(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_empty_report_is_empty() {
        let report: UpdateReport = serde_json::from_str("{}").unwrap();
        assert!(report.is_empty());
        assert_eq!(serde_json::to_string(&report).unwrap(), r#"{"managedBy":"operator","state":"idle"}"#);
    }
}
