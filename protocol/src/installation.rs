//! What an installer and the controller say to each other over HTTP, before there is a daemon:
//! `GET /nodes/{id}/installation` gives the plan, `POST` takes reports.

use serde::{Deserialize, Serialize};

use crate::{
    event::ErrorReport,
    ids::NodeId,
    node::NodeStatus,
    release::{Checksum, Platform, ReleaseManifest, ReleaseVersion},
    time::Timestamp,
};

/// The longest name of a step, in bytes; a longer one is cut.
pub const MAX_STEP_BYTES: usize = 64;

/// What to install on a node, and how to know that it is the right thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct InstallationPlan {
    /// The node that the plan is for.
    pub node_id: NodeId,
    /// Its name, for people.
    pub node_name: String,
    /// Its status when the plan was made.
    pub status: NodeStatus,
    /// The release to install.
    pub version: ReleaseVersion,
    /// What the release file runs on.
    pub platform: Platform,
    /// Where the release file is.
    pub download_url: String,
    /// Its SHA-256.
    pub checksum: Checksum,
    /// Its size in bytes.
    pub size: u64,
    /// Its detached minisign signature: the text of the `.minisig` file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// The WebSocket endpoint of the controller.
    pub controller_endpoint: String,
    /// A page for people.
    pub documentation_url: String,
}

impl InstallationPlan {
    /// What it says of the release alone, which is the same for every node.
    pub fn release(&self) -> ReleaseManifest {
        ReleaseManifest {
            version: self.version.clone(),
            platform: self.platform,
            checksum: self.checksum.clone(),
            size: self.size,
            signature: self.signature.clone(),
        }
    }
}

/// A report of an installer: `{phase, …}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum InstallationReport {
    /// The installer has begun.
    Started {
        /// The release that it installs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<ReleaseVersion>,
    },
    /// It is at a step.
    Progress {
        /// The step's name, e.g. `fetch_release`.
        step: String,
        /// 0 to 100 of the whole installation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        percent: Option<u8>,
    },
    /// It failed, and has put the machine back.
    Failed {
        /// The step that failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        /// Why.
        error: ErrorReport,
    },
    /// The service runs and the controller acknowledged a heartbeat.
    Succeeded {
        /// From command to success.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
    },
}

/// A failure that an installer could not report: kept on the node, and told by the next
/// installation or by the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UndeliveredFailure {
    /// The node that was to be installed.
    pub node_id: NodeId,
    /// When it failed, by the node's clock.
    pub at: Timestamp,
    /// The step that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Why.
    pub error: ErrorReport,
}

impl UndeliveredFailure {
    /// Why it failed, with the time at which it did: it is told later.
    pub fn told_late(self) -> ErrorReport {
        let mut error = self.error;
        error.details.insert("failedAt".to_owned(), self.at.to_string().into());
        error
    }
}

/// The answer to a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReportReceipt {
    /// The node's status after the report.
    pub status: NodeStatus,
}
