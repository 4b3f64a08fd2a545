//! A controller's offer of another version, as the node takes it: complete, and with a deadline.
//! Whether the node wants it is the machine's to decide.

use std::time::Duration;

use aio_protocol::{
    release::{Checksum, ReleaseVersion},
    time::Timestamp,
    wire::{NodeUpdate, Urgency},
};
use uuid::Uuid;

/// How long an offer without a deadline holds.
pub const LIFE: Duration = Duration::from_secs(24 * 3600);

/// How long an urgent offer holds at most.
pub const URGENT_LIFE: Duration = Duration::from_secs(3600);

/// An offer that says all that an update needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Which update.
    pub id: Uuid,
    /// The version.
    pub version: ReleaseVersion,
    /// The SHA-256 of its `manifest.json`.
    pub manifest_sha256: Checksum,
    /// The serial of the index that it was made by.
    pub index_serial: u64,
    /// Where the tree of releases is.
    pub releases_url: String,
    /// Not before this.
    pub not_before: Option<Timestamp>,
    /// Not begun after this.
    pub deadline: Timestamp,
    /// Whether it waits for no window.
    pub urgent: bool,
    /// Wait while a GPU is busier than this, in percent.
    pub gpu_above: Option<u8>,
    /// Whether the operator wants it now: it waits for nothing but its own time.
    pub hurried: bool,
}

impl Offer {
    /// Reads an offer that came at `now`; an error names what it lacks.
    pub fn of(update: NodeUpdate, now: Timestamp) -> Result<Self, &'static str> {
        let urgent = update.urgency == Urgency::Urgent;
        let latest = now.plus(if urgent { URGENT_LIFE } else { LIFE });
        let deadline = match update.deadline {
            Some(deadline) if urgent => deadline.min(latest),
            Some(deadline) => deadline,
            None => latest,
        };
        Ok(Self {
            id: update.update_id.ok_or("updateId")?,
            version: update.version,
            manifest_sha256: update.manifest_sha256.ok_or("manifestSha256")?,
            index_serial: update.index_serial.ok_or("indexSerial")?,
            releases_url: update.releases_url.ok_or("releasesUrl")?,
            not_before: update.not_before,
            deadline,
            urgent,
            gpu_above: update.defer_while_gpu_above,
            hurried: false,
        })
    }

    /// Whether both bring the same release, whatever they say of when.
    pub fn brings_the_same(&self, other: &Self) -> bool {
        (&self.version, &self.manifest_sha256) == (&other.version, &other.manifest_sha256)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An offer as a controller makes it.
    pub(crate) fn update(id: u128, version: &str) -> NodeUpdate {
        NodeUpdate {
            version: version.parse().unwrap(),
            update_id: Some(Uuid::from_u128(id)),
            manifest_sha256: Some(Checksum::of_digest([7; 32])),
            index_serial: Some(3),
            releases_url: Some("https://aiwm.example/releases".to_owned()),
            not_before: None,
            deadline: None,
            urgency: Urgency::Normal,
            defer_while_gpu_above: None,
        }
    }

    #[test]
    fn an_offer_holds_for_a_day_and_an_urgent_one_for_an_hour() {
        let now = Timestamp::from_millis(1_000_000);
        let deadline = |change: &dyn Fn(&mut NodeUpdate)| {
            let mut update = update(1, "v1.1.0");
            change(&mut update);
            Offer::of(update, now).unwrap().deadline.since(now)
        };
        let in_an_hour = |hours: u64| Some(now.plus(Duration::from_secs(hours * 3600)));
        assert_eq!(deadline(&|_| {}), LIFE);
        assert_eq!(deadline(&|update| update.deadline = in_an_hour(48)), LIFE * 2, "its own word counts");
        assert_eq!(deadline(&|update| update.urgency = Urgency::Urgent), URGENT_LIFE);
        let urgent_for = |hours| {
            deadline(&|update| {
                update.urgency = Urgency::Urgent;
                update.deadline = in_an_hour(hours);
            })
        };
        assert_eq!((urgent_for(0), urgent_for(48)), (Duration::ZERO, URGENT_LIFE));
    }

    #[test]
    fn an_offer_that_lacks_something_is_none() {
        let now = Timestamp::from_millis(0);
        let lacking = |change: fn(&mut NodeUpdate)| {
            let mut update = update(1, "v1.1.0");
            change(&mut update);
            Offer::of(update, now).unwrap_err()
        };
        assert_eq!(lacking(|update| update.update_id = None), "updateId");
        assert_eq!(lacking(|update| update.manifest_sha256 = None), "manifestSha256");
        assert_eq!(lacking(|update| update.index_serial = None), "indexSerial");
        assert_eq!(lacking(|update| update.releases_url = None), "releasesUrl");
    }
}
