//! What a person should look at: told once when it begins and once when it is over, and seen in a metric all the time between.

use std::sync::{Mutex, PoisonError};

use super::verdict::{Alarm, Answer};

#[derive(Default)]
pub(super) struct Alarms(Mutex<Vec<Alarm>>);

impl Alarms {
    /// Raises an alarm, unless it is raised.
    pub(super) fn raise(&self, alarm: Alarm, answer: &Answer) {
        let mut raised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !raised.contains(&alarm) {
            raised.push(alarm);
            gauge(alarm, 1.0);
            tracing::warn!(alarm = alarm.as_str(), %answer, advice = alarm.advice(), "events cannot be delivered as things are");
        }
    }

    /// NOTI took an event: whatever was wrong is right again.
    pub(super) fn clear(&self) {
        let raised = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for alarm in raised {
            gauge(alarm, 0.0);
            tracing::info!(alarm = alarm.as_str(), "NOTI takes events again");
        }
    }

    /// Shows in the metrics that nothing is raised yet.
    pub(super) fn register() {
        Alarm::ALL.into_iter().for_each(|alarm| gauge(alarm, 0.0));
    }
}

fn gauge(alarm: Alarm, value: f64) {
    metrics::gauge!("aio_event_delivery_alarm", "alarm" => alarm.as_str()).set(value);
}
