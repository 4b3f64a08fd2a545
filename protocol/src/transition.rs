//! The node status machine: one pure function decides every move. It says which event each move
//! owes; writing the change, its audit row and its event in one transaction is the driver's work.

use crate::{event::EventKind, node::NodeStatus};

/// Something that happened to a node, or that somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The installer reported that it has begun.
    InstallationStarted,
    /// The installer reported a step.
    InstallationProgressed,
    /// The installer reported that it is done; the worker's own arrival is what turns the node online.
    InstallationSucceeded,
    /// The installer reported failure.
    InstallationFailed,
    /// Nothing was heard of a running installation for too long.
    InstallationStalled,
    /// A worker's token was accepted and its first `node.register` received.
    WorkerWelcomed,
    /// No application message for a whole lease.
    LeaseExpired,
    /// The worker said goodbye.
    WorkerLeft,
    /// An admin took the node out of service.
    MaintenanceRequested,
    /// An admin put the node back into service.
    ResumeRequested {
        /// Whether a welcomed worker is connected at this moment.
        connected: bool,
    },
    /// An admin decommissioned the node.
    DecommissionRequested,
}

impl Trigger {
    /// Every trigger; `ResumeRequested` in both its forms.
    pub const ALL: [Self; 12] = [
        Self::InstallationStarted,
        Self::InstallationProgressed,
        Self::InstallationSucceeded,
        Self::InstallationFailed,
        Self::InstallationStalled,
        Self::WorkerWelcomed,
        Self::LeaseExpired,
        Self::WorkerLeft,
        Self::MaintenanceRequested,
        Self::ResumeRequested { connected: false },
        Self::ResumeRequested { connected: true },
        Self::DecommissionRequested,
    ];

    /// The name that audit rows and refusals use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InstallationStarted => "installation_started",
            Self::InstallationProgressed => "installation_progressed",
            Self::InstallationSucceeded => "installation_succeeded",
            Self::InstallationFailed => "installation_failed",
            Self::InstallationStalled => "installation_stalled",
            Self::WorkerWelcomed => "worker_welcomed",
            Self::LeaseExpired => "lease_expired",
            Self::WorkerLeft => "worker_left",
            Self::MaintenanceRequested => "maintenance",
            Self::ResumeRequested { .. } => "resume",
            Self::DecommissionRequested => "decommission",
        }
    }
}

/// One move: a change, one audit row, one event. Where nothing changes but something is to be told,
/// `from` and `to` are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The status before.
    pub from: NodeStatus,
    /// The status after.
    pub to: NodeStatus,
    /// The event that this move owes to NOTI.
    pub event: EventKind,
}

/// What a trigger does to a node in some status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The node moves, by one step or by several in this order.
    Moved(Vec<Step>),
    /// The trigger is in order and moves nothing.
    Unchanged,
    /// The trigger does not fit this status.
    Refused,
}

/// Decides what `trigger` does to a node in status `from`.
pub fn decide(from: NodeStatus, trigger: Trigger) -> Decision {
    use NodeStatus::{Error, Inactive, Installing, Maintenance, Offline, Online, Pending};
    use Trigger as T;

    let moved = |to, event| Decision::Moved(vec![Step { from, to, event }]);
    match (trigger, from) {
        (T::DecommissionRequested, Inactive) => Decision::Unchanged,
        (_, Inactive) => Decision::Refused,
        (T::DecommissionRequested, _) => moved(Inactive, EventKind::Decommissioned),

        (T::InstallationStarted, Pending | Offline | Error) => {
            moved(Installing, EventKind::InstallationStarted)
        }
        (T::InstallationStarted | T::InstallationProgressed, Installing) => Decision::Unchanged,
        (T::InstallationStarted | T::InstallationProgressed, _) => Decision::Refused,
        // The report may overtake the worker's own connection, or come after it.
        (T::InstallationSucceeded, Installing | Online | Maintenance) => Decision::Unchanged,
        (T::InstallationSucceeded, _) => Decision::Refused,
        (T::InstallationFailed | T::InstallationStalled, Installing) => {
            moved(Error, EventKind::InstallationFailed)
        }
        // An upgrade failed where the worker from before goes on, or the report comes late: nothing
        // moves, and everybody hears of it.
        (T::InstallationFailed, Online | Maintenance | Offline | Error) => {
            moved(from, EventKind::InstallationFailed)
        }
        (T::InstallationFailed, Pending) => Decision::Refused,
        (T::InstallationStalled, _) => Decision::Unchanged,

        // A worker that comes straight from `pending` was installed by means that report nothing:
        // both steps are recorded.
        (T::WorkerWelcomed, Pending) => Decision::Moved(vec![
            Step { from: Pending, to: Installing, event: EventKind::InstallationStarted },
            Step { from: Installing, to: Online, event: EventKind::Connected },
        ]),
        (T::WorkerWelcomed, Installing | Offline | Error) => moved(Online, EventKind::Connected),
        (T::WorkerWelcomed, Online | Maintenance) => Decision::Unchanged,

        (T::LeaseExpired | T::WorkerLeft, Online) => moved(Offline, EventKind::Disconnected),
        (T::LeaseExpired | T::WorkerLeft, _) => Decision::Unchanged,

        (T::MaintenanceRequested, Online | Offline | Error) => moved(Maintenance, EventKind::MaintenanceMode),
        (T::MaintenanceRequested, Maintenance) => Decision::Unchanged,
        (T::MaintenanceRequested, _) => Decision::Refused,
        (T::ResumeRequested { connected: true }, Maintenance) => moved(Online, EventKind::Resumed),
        (T::ResumeRequested { connected: false }, Maintenance) => moved(Offline, EventKind::Resumed),
        (T::ResumeRequested { .. }, _) => Decision::Refused,
    }
}

/// The names of the triggers that are not refused in this status, for a 409's answer. Each once.
pub fn allowed(from: NodeStatus) -> Vec<&'static str> {
    let mut names: Vec<_> = Trigger::ALL
        .into_iter()
        .filter(|&t| decide(from, t) != Decision::Refused)
        .map(Trigger::as_str)
        .collect();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use NodeStatus::{Error, Inactive, Installing, Maintenance, Offline, Online, Pending};

    /// The table of the design, row by row, and the failures that move nothing.
    const TABLE: [(NodeStatus, Trigger, NodeStatus, EventKind); 23] = [
        (Pending, Trigger::InstallationStarted, Installing, EventKind::InstallationStarted),
        (Offline, Trigger::InstallationStarted, Installing, EventKind::InstallationStarted),
        (Error, Trigger::InstallationStarted, Installing, EventKind::InstallationStarted),
        (Installing, Trigger::InstallationFailed, Error, EventKind::InstallationFailed),
        (Installing, Trigger::InstallationStalled, Error, EventKind::InstallationFailed),
        (Online, Trigger::InstallationFailed, Online, EventKind::InstallationFailed),
        (Maintenance, Trigger::InstallationFailed, Maintenance, EventKind::InstallationFailed),
        (Offline, Trigger::InstallationFailed, Offline, EventKind::InstallationFailed),
        (Error, Trigger::InstallationFailed, Error, EventKind::InstallationFailed),
        (Installing, Trigger::WorkerWelcomed, Online, EventKind::Connected),
        (Offline, Trigger::WorkerWelcomed, Online, EventKind::Connected),
        (Error, Trigger::WorkerWelcomed, Online, EventKind::Connected),
        (Online, Trigger::LeaseExpired, Offline, EventKind::Disconnected),
        (Online, Trigger::WorkerLeft, Offline, EventKind::Disconnected),
        (Online, Trigger::MaintenanceRequested, Maintenance, EventKind::MaintenanceMode),
        (Offline, Trigger::MaintenanceRequested, Maintenance, EventKind::MaintenanceMode),
        (Error, Trigger::MaintenanceRequested, Maintenance, EventKind::MaintenanceMode),
        (Maintenance, Trigger::ResumeRequested { connected: true }, Online, EventKind::Resumed),
        (Maintenance, Trigger::ResumeRequested { connected: false }, Offline, EventKind::Resumed),
        (Pending, Trigger::DecommissionRequested, Inactive, EventKind::Decommissioned),
        (Online, Trigger::DecommissionRequested, Inactive, EventKind::Decommissioned),
        (Maintenance, Trigger::DecommissionRequested, Inactive, EventKind::Decommissioned),
        (Error, Trigger::DecommissionRequested, Inactive, EventKind::Decommissioned),
    ];

    /// The moves that the table allows, the rest of "any → inactive" and the two-step arrival included.
    fn in_table(step: Step) -> bool {
        TABLE.iter().any(|&(from, _, to, event)| (from, to, event) == (step.from, step.to, step.event))
            || (step.to == Inactive && step.from != Inactive && step.event == EventKind::Decommissioned)
    }

    #[test]
    fn every_row_of_the_design_moves_as_written() {
        for (from, trigger, to, event) in TABLE {
            assert_eq!(
                decide(from, trigger),
                Decision::Moved(vec![Step { from, to, event }]),
                "{from} {trigger:?}"
            );
        }
    }

    #[test]
    fn a_direct_connect_from_pending_records_both_steps() {
        let Decision::Moved(steps) = decide(Pending, Trigger::WorkerWelcomed) else { panic!("refused") };
        let events: Vec<_> = steps.iter().map(|step| step.event).collect();
        assert_eq!(events, [EventKind::InstallationStarted, EventKind::Connected]);
        assert_eq!(
            (steps[0].from, steps[0].to, steps[1].from, steps[1].to),
            (Pending, Installing, Installing, Online)
        );
    }

    #[test]
    fn maintenance_is_left_only_by_an_admin() {
        for trigger in [
            Trigger::LeaseExpired,
            Trigger::WorkerLeft,
            Trigger::WorkerWelcomed,
            Trigger::InstallationStalled,
        ] {
            assert_eq!(decide(Maintenance, trigger), Decision::Unchanged, "{trigger:?}");
        }
    }

    #[test]
    fn inactive_is_final() {
        for trigger in Trigger::ALL {
            assert!(!matches!(decide(Inactive, trigger), Decision::Moved(_)), "{trigger:?}");
        }
        assert_eq!(allowed(Inactive), ["decommission"]);
    }

    #[test]
    fn a_refusal_names_what_is_allowed() {
        assert_eq!(decide(Pending, Trigger::MaintenanceRequested), Decision::Refused);
        assert_eq!(
            allowed(Pending),
            [
                "installation_started",
                "installation_stalled",
                "worker_welcomed",
                "lease_expired",
                "worker_left",
                "decommission"
            ]
        );
    }

    proptest! {
        #[test]
        fn any_sequence_moves_only_as_the_table_allows(indices in prop::collection::vec(0..Trigger::ALL.len(), 0..64)) {
            let mut status = Pending;
            for index in indices {
                if let Decision::Moved(steps) = decide(status, Trigger::ALL[index]) {
                    prop_assert!(!steps.is_empty());
                    for step in steps {
                        prop_assert_eq!(step.from, status);
                        prop_assert!(in_table(step), "{:?}", step);
                        status = step.to;
                    }
                }
            }
        }

        #[test]
        fn a_second_identical_trigger_never_moves_again(status in 0..NodeStatus::ALL.len(), index in 0..Trigger::ALL.len()) {
            let trigger = Trigger::ALL[index];
            if let Decision::Moved(steps) = decide(NodeStatus::ALL[status], trigger) {
                let after = steps.last().unwrap().to;
                let again = decide(after, trigger);
                let moves = |steps: &Vec<Step>| steps.iter().any(|step| step.from != step.to);
                prop_assert!(!matches!(again, Decision::Moved(ref steps) if moves(steps)), "{:?}", again);
            }
        }
    }
}
