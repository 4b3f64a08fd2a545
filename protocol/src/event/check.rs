//! What an event may say beyond its form: the status that its type leads to, and lengths that a
//! dashboard can show. Asked before an event is stored and again when it is received. What came
//! from a machine is shortened to fit, never refused: a long error must not keep a node's change
//! from being told.

use serde_json::{Map, Value};

use super::{AlarmDetail, ErrorReport, EventBody, EventKind, GpuDevice, NodeEvent};
use crate::{
    node::NodeStatus,
    text::{self, Clean},
};

/// The longest name of a node, in characters.
const MAX_NAME_CHARS: usize = 128;
/// The longest error code.
const MAX_CODE_CHARS: usize = 64;
/// The longest sentence about an error.
const MAX_MESSAGE_CHARS: usize = 2000;
/// The most that an error's details take as JSON.
const MAX_DETAILS_BYTES: usize = 8 * 1024;
/// The longest reason of a disconnection.
const MAX_REASON_CHARS: usize = 64;
/// No machine has as many GPUs.
const MAX_GPUS: usize = 64;
/// The longest name of a GPU's model.
const MAX_MODEL_CHARS: usize = 128;

/// What an event says that it cannot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidEvent {
    field: &'static str,
    problem: String,
}

impl NodeEvent {
    /// Whether the event says nothing that its type cannot.
    pub fn check(&self) -> Result<(), InvalidEvent> {
        let (name, status) = (self.node_name(), self.status());
        line("data.nodeName", name, MAX_NAME_CHARS)?;
        if !statuses(self.kind()).contains(&status) {
            return refuse("data.status", format!("cannot be {status} after {}", self.kind().as_str()));
        }
        match &self.body {
            EventBody::InstallationFailed(data) => check_error(&data.detail.error),
            EventBody::Connected(data) => check_gpus(&data.detail.gpu_devices),
            EventBody::Disconnected(data) => {
                line("data.disconnectReason", &data.detail.disconnect_reason, MAX_REASON_CHARS)
            }
            EventBody::UpdateFailed(data) => check_error(&data.detail.error),
            EventBody::HealthChanged(data) => match &data.detail.health.worst {
                Some(worst) => line("data.health.worst", worst, MAX_MESSAGE_CHARS),
                None => Ok(()),
            },
            EventBody::AlarmRaised(data) | EventBody::AlarmResolved(data) => check_alarm(&data.detail),
            EventBody::Updated(_)
            | EventBody::Registered(_)
            | EventBody::InstallationStarted(_)
            | EventBody::MaintenanceMode(_)
            | EventBody::Resumed(_)
            | EventBody::Decommissioned(_) => Ok(()),
        }
    }
}

impl ErrorReport {
    /// The report, cleaned and shortened so that an event can carry it.
    pub fn fitted(mut self) -> Self {
        self.code = text::clean(&self.code, MAX_CODE_CHARS);
        if self.code.is_empty() {
            "UNKNOWN".clone_into(&mut self.code);
        }
        self.message = text::clean(&self.message, MAX_MESSAGE_CHARS);
        self.details = self
            .details
            .into_iter()
            .map(|(key, value)| (text::clean(&key, MAX_CODE_CHARS), value.cleaned(MAX_DETAILS_BYTES)))
            .collect();
        if details_bytes(&self.details) > MAX_DETAILS_BYTES {
            self.details = Map::from_iter([("omitted".to_owned(), Value::from("too long"))]);
        }
        self
    }
}

/// The devices, as many and with names as long as an event can carry.
pub(super) fn fitted_gpus(devices: impl Iterator<Item = GpuDevice>) -> Vec<GpuDevice> {
    let fitted =
        |device: GpuDevice| GpuDevice { model: text::clean(&device.model, MAX_MODEL_CHARS), ..device };
    devices.take(MAX_GPUS).map(fitted).collect()
}

/// The statuses that a node can have after an event.
fn statuses(kind: EventKind) -> &'static [NodeStatus] {
    match kind {
        EventKind::Registered => &[NodeStatus::Pending],
        EventKind::InstallationStarted => &[NodeStatus::Installing],
        // Of an upgrade, or told late: then the node is what it was.
        EventKind::InstallationFailed => {
            &[NodeStatus::Error, NodeStatus::Online, NodeStatus::Maintenance, NodeStatus::Offline]
        }
        EventKind::Connected => &[NodeStatus::Online],
        EventKind::Disconnected => &[NodeStatus::Offline],
        EventKind::MaintenanceMode => &[NodeStatus::Maintenance],
        EventKind::Resumed => &[NodeStatus::Online, NodeStatus::Offline],
        EventKind::Decommissioned => &[NodeStatus::Inactive],
        // Told by a worker that is welcome.
        EventKind::Updated | EventKind::UpdateFailed => &[NodeStatus::Online, NodeStatus::Maintenance],
        // Nobody is told of a node that is not in service.
        EventKind::HealthChanged | EventKind::AlarmRaised | EventKind::AlarmResolved => &[
            NodeStatus::Pending,
            NodeStatus::Installing,
            NodeStatus::Online,
            NodeStatus::Offline,
            NodeStatus::Maintenance,
            NodeStatus::Error,
        ],
    }
}

fn check_error(error: &ErrorReport) -> Result<(), InvalidEvent> {
    line("data.error.code", &error.code, MAX_CODE_CHARS)?;
    if error.message.chars().count() > MAX_MESSAGE_CHARS {
        return refuse("data.error.message", format!("has more than {MAX_MESSAGE_CHARS} characters"));
    }
    if details_bytes(&error.details) > MAX_DETAILS_BYTES {
        return refuse("data.error.details", format!("takes more than {MAX_DETAILS_BYTES} bytes"));
    }
    Ok(())
}

fn check_alarm(alarm: &AlarmDetail) -> Result<(), InvalidEvent> {
    line("data.kind", &alarm.kind, MAX_CODE_CHARS)?;
    line("data.level", &alarm.level, MAX_CODE_CHARS)?;
    line("data.reason", &alarm.reason, MAX_MESSAGE_CHARS)?;
    line("data.action", &alarm.action, MAX_MESSAGE_CHARS)?;
    alarm.resolution.as_deref().map_or(Ok(()), |text| line("data.resolution", text, MAX_CODE_CHARS))
}

fn check_gpus(devices: &[GpuDevice]) -> Result<(), InvalidEvent> {
    if devices.len() > MAX_GPUS {
        return refuse("data.gpuDevices", format!("has more than {MAX_GPUS} entries"));
    }
    // A driver may say nothing, and so an empty model is one.
    let too_long = |device: &GpuDevice| printable(&device.model, MAX_MODEL_CHARS) != device.model;
    if devices.iter().any(too_long) {
        return refuse(
            "data.gpuDevices.model",
            format!("is not {MAX_MODEL_CHARS} printable characters at most"),
        );
    }
    Ok(())
}

/// One line that is not empty.
fn line(field: &'static str, text: &str, max: usize) -> Result<(), InvalidEvent> {
    if text.trim().is_empty() {
        refuse(field, "is empty".to_owned())
    } else if printable(text, max) != text {
        refuse(field, format!("is not one line of at most {max} characters"))
    } else {
        Ok(())
    }
}

fn refuse(field: &'static str, problem: String) -> Result<(), InvalidEvent> {
    Err(InvalidEvent { field, problem })
}

fn printable(text: &str, max: usize) -> String {
    text.chars().filter(|c| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}')).take(max).collect()
}

fn details_bytes(details: &Map<String, Value>) -> usize {
    serde_json::to_vec(details).map_or(usize::MAX, |json| json.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{
        node::NodeStatus,
        transition::{Decision, Trigger, decide},
    };

    fn event(kind: &str, status: &str, detail: Value) -> NodeEvent {
        let mut data = json!({"nodeId": "69396100cd71623c7bbfbfee", "nodeName": "gpu", "status": status,
            "owner": {"orgId": "o", "userId": "u"}});
        data.as_object_mut().unwrap().extend(detail.as_object().unwrap().clone());
        let event = json!({"type": kind, "timestamp": "2025-12-11T12:00:00.000Z", "data": data});
        serde_json::from_value(event).unwrap()
    }

    fn failed(error: Value) -> NodeEvent {
        event("node.installation_failed", "error", json!({ "error": error }))
    }

    #[test]
    fn every_move_that_the_table_makes_leads_to_a_status_that_its_event_may_have() {
        for status in NodeStatus::ALL {
            for trigger in Trigger::ALL {
                let Decision::Moved(steps) = decide(status, trigger) else { continue };
                for step in steps {
                    assert!(statuses(step.event).contains(&step.to), "{step:?}");
                }
            }
        }
    }

    #[test]
    fn a_status_that_does_not_fit_its_type_is_named() {
        assert_eq!(event("node.registered", "pending", json!({})).check(), Ok(()));
        let error = event("node.registered", "online", json!({})).check().unwrap_err();
        assert_eq!(error.to_string(), "data.status: cannot be online after node.registered");
    }

    #[test]
    fn lengths_have_limits() {
        let checked = |error| failed(error).check().map_err(|error| error.field);
        assert_eq!(checked(json!({"code": "DISK_FULL", "message": "no room"})), Ok(()));
        assert_eq!(checked(json!({"code": "", "message": "no room"})), Err("data.error.code"));
        assert_eq!(checked(json!({"code": "A\nB", "message": "no room"})), Err("data.error.code"));
        assert_eq!(checked(json!({"code": "A", "message": "x".repeat(2001)})), Err("data.error.message"));
        let details = json!({"code": "A", "message": "m", "details": {"log": "x".repeat(9000)}});
        assert_eq!(checked(details), Err("data.error.details"));
        let gpus = |count, model: &str| {
            let detail =
                json!({"ipAddress": "10.0.0.1", "gpuDevices": vec![json!({ "model": model }); count]});
            event("node.connected", "online", detail).check().map_err(|error| error.field)
        };
        assert_eq!(gpus(64, "H100"), Ok(()));
        assert_eq!(gpus(65, "H100"), Err("data.gpuDevices"));
        assert_eq!(gpus(1, &"x".repeat(129)), Err("data.gpuDevices.model"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn whatever_a_machine_reports_fits_once_it_is_shortened(
            code in ".{0,100}", message in "(?s).{0,3000}", details in ".{0,9000}",
            models in proptest::collection::vec("(?s).{0,200}", 0..80),
        ) {
            let report = ErrorReport { code, message, details: Map::from_iter([("d".into(), details.into())]) };
            let fitted = report.fitted();
            prop_assert_eq!(failed(serde_json::to_value(&fitted).unwrap()).check(), Ok(()));
            prop_assert_eq!(fitted.clone().fitted(), fitted);
            let devices = fitted_gpus(models.into_iter().map(|model| GpuDevice { model, memory_total: None }));
            prop_assert_eq!(check_gpus(&devices), Ok(()));
        }
    }
}
