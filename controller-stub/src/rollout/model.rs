//! The words of a rollout, as the database keeps them and the API shows them.

use std::{fmt, str::FromStr, time::Duration};

use aio_protocol::{
    ids::{NodeId, OwnerId},
    release::ReleaseVersion,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, schema::Type},
};
use uuid::Uuid;

/// Canaries that a share of the fleet makes, at most.
const MAX_CANARIES: u32 = 5;

/// Nodes that may switch at a time, at most.
const MAX_IN_FLIGHT: u32 = 50;

/// A part of a fleet: a number of nodes, or percent of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Share {
    Nodes(u32),
    Percent(u8),
}

impl FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // As people write a number: no sign, no zeros before it.
        let number = |text: &str| text.parse::<u32>().ok().filter(|it| it.to_string() == text);
        let share = match text.strip_suffix('%') {
            Some(percent) => {
                let percent = number(percent).and_then(|it| u8::try_from(it).ok());
                percent.filter(|it| (1..=100).contains(it)).map(Self::Percent)
            }
            None => number(text).filter(|it| (1..=10_000).contains(it)).map(Self::Nodes),
        };
        share.ok_or("must be a number of nodes from 1 to 10000, or percent of them: 5 or 10%")
    }
}

impl TryFrom<String> for Share {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(nodes) => write!(f, "{nodes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl PartialSchema for Share {
    fn schema() -> RefOr<Schema> {
        let shares = "^([1-9][0-9]{0,3}|10000)$|^([1-9][0-9]?|100)%$";
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(shares));
        text.description(Some("A number of nodes, or percent of them")).examples(["5", "10%"]).into()
    }
}

impl ToSchema for Share {}

impl Share {
    /// Of so many nodes, and of percent at most `most`; at least one where there is any.
    fn of(self, nodes: u32, most: u32) -> u32 {
        let part = match self {
            Self::Nodes(part) => part,
            Self::Percent(percent) => nodes.saturating_mul(percent.into()).div_ceil(100).min(most),
        };
        part.clamp(1, nodes.max(1)).min(nodes)
    }

    /// How many canaries a fleet of `nodes` has.
    pub(crate) fn canaries(self, nodes: u32) -> u32 {
        self.of(nodes, MAX_CANARIES)
    }

    /// How many of `nodes` may switch at a time.
    pub(crate) fn in_flight(self, nodes: u32) -> u32 {
        self.of(nodes, MAX_IN_FLIGHT)
    }
}

/// How a rollout is to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Settings {
    /// How many nodes go first.
    pub canaries: Share,
    /// For how long the canaries must run before the others follow.
    pub soak_seconds: u32,
    /// Up to which part of the nodes each wave goes, in percent; the last is 100.
    pub waves: Vec<u8>,
    /// Between the end of a wave and the beginning of the next.
    pub wave_pause_seconds: u32,
    /// How many nodes may switch at a time.
    pub in_flight: Share,
    /// Whether nodes go on whatever their window says.
    pub urgent: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            canaries: Share::Percent(1),
            soak_seconds: 15 * 60,
            waves: vec![10, 30, 100],
            wave_pause_seconds: 10 * 60,
            in_flight: Share::Percent(5),
            urgent: false,
        }
    }
}

impl Settings {
    /// Why these cannot be, as a field and what is wrong with it.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let grows = self.waves.is_sorted_by(|before, after| before < after);
        let whole = self.waves.last() == Some(&100) && self.waves.first().is_some_and(|first| *first > 0);
        if !grows || !whole || self.waves.len() > 10 {
            return Some("waves: must be at most 10 growing percentages, and the last 100");
        }
        if self.soak_seconds.max(self.wave_pause_seconds) > 7 * 86_400 {
            return Some("soakSeconds, wavePauseSeconds: must be at most a week");
        }
        None
    }

    /// Until when after its offer a node must have begun.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(if self.urgent { 3600 } else { 24 * 3600 })
    }
}

/// What holds for the nodes with the label `group=NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Group {
    /// The version that its nodes stay at.
    pub pin: Option<ReleaseVersion>,
    /// A node waits while one of its GPUs is busier than this, in percent, until the offer's deadline.
    pub defer_while_gpu_above: Option<u8>,
    /// How many of its nodes may switch at a time in a rollout to it, in place of the rollout's own limit.
    pub in_flight: Option<Share>,
}

/// A rollout, but for its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rollout {
    pub id: Uuid,
    pub org: OwnerId,
    pub version: ReleaseVersion,
    /// Only the nodes with this label `group`; all when none.
    pub group: Option<String>,
    /// Only this node.
    pub only: Option<NodeId>,
    pub settings: Settings,
    pub created_at: Timestamp,
    /// Who made it.
    pub actor: String,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    pub state: State,
    /// How many canaries were planned.
    pub canaries: u32,
    /// How many may switch at a time.
    pub in_flight: u32,
    pub tally: Tally,
    /// Faulty and lost nodes, and inconclusive ones, that somebody knew of and went on.
    pub pardoned: Pardoned,
    /// When a node last got on.
    pub progressed_at: Timestamp,
    /// Counts the saves: one that read an older row is refused.
    pub revision: i64,
}

/// Failures that count no more, because somebody knew of them and went on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pardoned {
    pub canaries: u32,
    pub failed: u32,
    pub inconclusive: u32,
}

/// Where a rollout is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum State {
    /// Nobody has started it.
    Draft,
    /// The canaries go.
    Canary,
    /// The canaries run the new version, and are watched.
    Soaking { until: Timestamp },
    /// This wave goes, counted from 1.
    Rolling { wave: u8, opens_at: Timestamp },
    /// Every node that is there has its offer.
    Finishing,
    /// All nodes that were there have ended; those that come later still get it.
    Completed,
    /// No node is let go; those that switch finish.
    Paused { by: Pauser, from: Box<State> },
    /// It has stopped itself.
    Halted { criterion: Criterion, from: Box<State> },
    /// Its nodes go back to the versions before, up to this wave.
    Reverting { wave: u8 },
    /// Somebody has ended it.
    Aborted,
    /// A newer one took its place.
    Superseded,
}

impl State {
    /// As it is written.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Canary => "canary",
            Self::Soaking { .. } => "soaking",
            Self::Rolling { .. } => "rolling",
            Self::Finishing => "finishing",
            Self::Completed => "completed",
            Self::Paused { .. } => "paused",
            Self::Halted { .. } => "halted",
            Self::Reverting { .. } => "reverting",
            Self::Aborted => "aborted",
            Self::Superseded => "superseded",
        }
    }

    /// Whether nodes get anything from it.
    pub(crate) fn is_live(&self) -> bool {
        matches!(
            self,
            Self::Canary
                | Self::Soaking { .. }
                | Self::Rolling { .. }
                | Self::Finishing
                | Self::Completed
                | Self::Reverting { .. }
        )
    }

    /// Whether it is over for good.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self, Self::Aborted | Self::Superseded)
    }
}

/// Who paused a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Pauser {
    /// Somebody.
    Operator,
    /// Of too many nodes nobody can say how their update ended.
    Inconclusive,
    /// Most of the fleet is silent. It goes on when the fleet is heard again.
    Brake,
    /// No node got on for an hour.
    Stalled,
}

/// Why a rollout halted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Criterion {
    /// The release is faulty on a canary.
    FaultyCanary,
    /// Too many nodes are faulty or lost.
    TooManyFailed,
}

/// How a node of a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Stage {
    /// Its turn has not come, or there was no room yet.
    Pending,
    /// It has the offer and prepares.
    Offered,
    /// It waits for its window, its GPUs or its operator.
    Deferred,
    /// It is prepared, and waits to be let go.
    Staged,
    /// It may switch, or does.
    Permitted,
    /// It runs the new version and watches it.
    Probation,
    /// It runs the new version.
    Succeeded,
    /// The release does not work on it.
    Faulty,
    /// Nobody can say whether it was the release. It is tried again, three times.
    Inconclusive,
    /// It did not come back.
    Lost,
    /// It was not there when its turn came; it gets the offer when it comes.
    Late,
    /// It is left out.
    Skipped,
}

impl Stage {
    pub(crate) const ALL: [Self; 12] = [
        Self::Pending,
        Self::Offered,
        Self::Deferred,
        Self::Staged,
        Self::Permitted,
        Self::Probation,
        Self::Succeeded,
        Self::Faulty,
        Self::Inconclusive,
        Self::Lost,
        Self::Late,
        Self::Skipped,
    ];

    /// As it is written.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Offered => "offered",
            Self::Deferred => "deferred",
            Self::Staged => "staged",
            Self::Permitted => "permitted",
            Self::Probation => "probation",
            Self::Succeeded => "succeeded",
            Self::Faulty => "faulty",
            Self::Inconclusive => "inconclusive",
            Self::Lost => "lost",
            Self::Late => "late",
            Self::Skipped => "skipped",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == text)
    }

    /// Whether nothing that the node says changes it any more.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Faulty)
    }

    /// Whether a wave waits for the node.
    fn is_waited_for(self) -> bool {
        match self {
            Self::Pending | Self::Offered | Self::Staged | Self::Permitted | Self::Probation => true,
            Self::Deferred
            | Self::Succeeded
            | Self::Faulty
            | Self::Inconclusive
            | Self::Lost
            | Self::Late
            | Self::Skipped => false,
        }
    }
}

/// Why a node is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Skip {
    /// It runs the version.
    Current,
    /// It runs a newer one.
    Newer,
    /// Its operator, the controller or its group keeps it at another version.
    Pinned,
    /// Debian's package manager owns its version.
    Packaged,
    /// It was not installed with `--auto-update`.
    Unmanaged,
    /// Its worker is too old to update itself.
    Incapable,
    /// There is no way from its version, or none for its machine.
    Incompatible,
    /// Its operator went back.
    Reverted,
    /// It belongs to a newer rollout.
    Superseded,
    /// The rollout was aborted before its turn came.
    Aborted,
    /// It was decommissioned.
    Decommissioned,
}

impl Skip {
    /// Why, in a sentence.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Current => "it runs this version",
            Self::Newer => "it runs a newer version",
            Self::Pinned => "it is pinned to another version",
            Self::Packaged => {
                "its version is the package manager's: apt-get install --only-upgrade aio-worker"
            }
            Self::Unmanaged => "it was not installed with --auto-update: aio-worker install --auto-update",
            Self::Incapable => {
                "its worker is too old to update itself: install this version on the node once"
            }
            Self::Incompatible => "the index has no way from its version to this one",
            Self::Reverted => "its operator went back to the version before",
            Self::Superseded => "it belongs to a newer rollout",
            Self::Aborted => "the rollout was aborted before its turn came",
            Self::Decommissioned => "it was decommissioned",
        }
    }

    /// Whether it stays so whatever the node says.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Reverted | Self::Superseded | Self::Aborted | Self::Decommissioned)
    }
}

/// A node in a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub node: NodeId,
    /// Its wave; 0 for the canaries.
    pub wave: u8,
    /// Its place in the order of all.
    pub place: u32,
    pub stage: Stage,
    pub note: Note,
    /// When it has to be looked at although it said nothing.
    pub due: Option<Timestamp>,
}

/// What is known of a member beside its stage, as the database keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Note {
    /// Why it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip: Option<Skip>,
    /// Its last offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offered>,
    /// The version that it ran before its first offer, and goes back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<ReleaseVersion>,
    /// Whether it was let go and is not heard of.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
    /// Whether it is to go back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub back: bool,
    /// How often it was tried without a result.
    pub tries: u8,
    /// The code of the failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What went wrong, or why it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// An offer as it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Offered {
    pub update_id: Uuid,
    /// The version that it names: the rollout's, or a stepping stone on the way there.
    pub version: ReleaseVersion,
    pub at: Timestamp,
    /// Whether it holds; one that was taken back does not.
    pub stands: bool,
}

/// How many nodes of each wave stand how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Tally(Vec<Vec<u32>>);

impl Tally {
    pub(crate) fn add(&mut self, wave: u8, stage: Stage) {
        let (wave, stage) = (usize::from(wave), stage as usize);
        if self.0.len() <= wave {
            self.0.resize_with(wave + 1, Vec::new);
        }
        if let Some(counts) = self.0.get_mut(wave) {
            if counts.len() <= stage {
                counts.resize(Stage::ALL.len(), 0);
            }
            if let Some(count) = counts.get_mut(stage) {
                *count += 1;
            }
        }
    }

    pub(crate) fn remove(&mut self, wave: u8, stage: Stage) {
        let count = self.0.get_mut(usize::from(wave)).and_then(|counts| counts.get_mut(stage as usize));
        if let Some(count) = count {
            *count = count.saturating_sub(1);
        }
    }

    /// The members that stand so, of the waves up to `wave`.
    pub(crate) fn until(&self, wave: u8, stage: Stage) -> u32 {
        self.0.iter().take(usize::from(wave) + 1).filter_map(|counts| counts.get(stage as usize)).sum()
    }

    /// All members that stand so.
    pub(crate) fn of(&self, stage: Stage) -> u32 {
        self.until(u8::MAX, stage)
    }

    /// How many of the waves up to `wave` are waited for.
    pub(crate) fn waited_for(&self, wave: u8) -> u32 {
        Stage::ALL
            .into_iter()
            .filter(|stage| stage.is_waited_for())
            .map(|stage| self.until(wave, stage))
            .sum()
    }

    /// How many members there are, but for those that are left out.
    pub(crate) fn members(&self) -> u32 {
        Stage::ALL.into_iter().filter(|it| *it != Stage::Skipped).map(|stage| self.of(stage)).sum()
    }
}

/// The version of a worker that calls itself so: `1.0.0` or `v1.0.0`.
pub(crate) fn version_of(daemon: &str) -> Option<ReleaseVersion> {
    let daemon = daemon.split_whitespace().next()?;
    format!("v{}", daemon.trim_start_matches('v')).parse().ok()
}
