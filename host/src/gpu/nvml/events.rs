//! The errors that the driver tells of by itself (Xid). Listening blocks the thread, never longer
//! than it is told to. What an error means is not known here.

use std::time::{Duration, SystemTime};

use aio_protocol::time::Timestamp;
use nvml_wrapper::{EventSet, Nvml, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError};

/// No more are taken at once than this: a program that errs for ever must not keep the thread from
/// its other work.
const MOST_AT_ONCE: usize = 256;

/// An error that was heard of.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) uuid: Option<String>,
    pub(super) code: u64,
    pub(super) at: Timestamp,
}

/// A subscription to the errors of all GPUs.
pub(super) struct Events<'nvml>(EventSet<'nvml>);

impl<'nvml> Events<'nvml> {
    /// Subscribes to each GPU that can tell; none when no GPU can.
    pub(super) fn subscribe(nvml: &'nvml Nvml) -> Option<Self> {
        let mut set = nvml.create_event_set().ok()?;
        let mut subscribed = false;
        for index in 0..nvml.device_count().ok()? {
            let Ok(device) = nvml.device_by_index(index) else { continue };
            let supported = device.supported_event_types().unwrap_or(EventTypes::empty());
            if supported.contains(EventTypes::CRITICAL_XID_ERROR) {
                // A set that a GPU refused is lost: the others then have to be asked.
                set = device.register_events(EventTypes::CRITICAL_XID_ERROR, set).ok()?;
                subscribed = true;
            }
        }
        subscribed.then_some(Self(set))
    }

    /// What is heard within this time, at most; returns as soon as there is something.
    pub(super) fn listen(&self, patience: Duration) -> Vec<Heard> {
        let mut heard = vec![];
        let mut patience = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        let began = std::time::Instant::now();
        while heard.len() < MOST_AT_ONCE {
            match self.0.wait(patience) {
                Ok(event) => heard.extend(event.event_data.map(|error| Heard {
                    uuid: event.device.uuid().ok(),
                    code: match error {
                        XidError::Value(code) => code,
                        XidError::Unknown => 0,
                    },
                    at: SystemTime::now().into(),
                })),
                Err(NvmlError::Timeout) => break,
                Err(_) => {
                    // A lost GPU makes every wait fail at once, which must not become a hot loop:
                    // the probe will say what is the matter.
                    if heard.is_empty() {
                        let rest = Duration::from_millis(patience.into()).saturating_sub(began.elapsed());
                        std::thread::sleep(rest);
                    }
                    break;
                }
            }
            patience = 0;
        }
        heard
    }
}
