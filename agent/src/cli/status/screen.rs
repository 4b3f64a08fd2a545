//! How a worker stands, as people read it: one screen, and a line for each change after it. Pure.

use std::time::Duration;

use aio_protocol::{
    snapshot::{SessionSnapshot, SessionState},
    time::Timestamp,
    update::UpdateReport,
};

use super::Status;
use crate::cli::{
    containers, gpus,
    paint::{Tone, paint},
    services,
    update::progress,
};

/// All of it.
pub(super) fn screen(status: &Status, now: Timestamp) -> String {
    let Status { worker, pending_update } = status;
    let session = &worker.session;
    let state = format!("{} for {}{}", painted(session), span(now.since(session.since)), code(session));
    let heartbeat = match session.last_heartbeat_at {
        Some(at) => format!("{} ago", span(now.since(at))),
        None => "none yet".to_owned(),
    };
    let mut rows = vec![("worker", format!("{}, up {}", worker.version, span(now.since(worker.started_at))))];
    rows.extend(pending_update.as_ref().map(|_| ("update", update(status))));
    rows.extend(under_way(status).map(|words| ("update", words)));
    rows.extend([
        ("node", worker.node_id.to_string()),
        ("session", state),
        ("", session.detail.clone()),
        ("controller", worker.controller.clone()),
        ("heartbeat", format!("last acknowledged: {heartbeat}")),
        ("token", token(worker.token_expires_at, now)),
    ]);
    rows.extend(services::line(&worker.services).map(|line| ("services", line)));
    rows.push(("GPUs", gpus_of(status)));
    let row = |(name, value): &(&str, String)| {
        format!("{} {value}\n", paint(Tone::Heading, &format!("{name:<11}")))
    };
    let mut text: String = rows.iter().map(row).collect();
    text.push_str(&gpus::table(&worker.gpus, &worker.gpu_status));
    if let Some(line) = containers_of(status) {
        text.push_str(&row(&("containers", line)));
        text.push_str(&containers::table(worker.containers.as_deref(), worker.containers_left_out));
    }
    text
}

/// What is not as it was, a line each; a heartbeat or a reading is no change.
pub(super) fn changes(before: &Status, after: &Status, now: Timestamp) -> String {
    let session = &after.worker.session;
    let said = |status: &Status| {
        let session = &status.worker.session;
        (session.state, session.code.clone(), session.detail.clone())
    };
    let mut lines = Vec::new();
    if said(before) != said(after) {
        lines.push(format!("{}{}: {}", painted(session), code(session), session.detail));
    }
    if gpus_of(before) != gpus_of(after) {
        lines.push(format!("GPUs: {}", gpus_of(after)));
    }
    let services = services::line(&after.worker.services);
    if services::line(&before.worker.services) != services {
        lines.push(format!("services: {}", services.unwrap_or_else(|| "none".to_owned())));
    }
    let containers = containers_of(after);
    if containers_of(before) != containers {
        lines.push(format!("containers: {}", containers.unwrap_or_else(|| "none".to_owned())));
    }
    if before.worker.token_expires_at != after.worker.token_expires_at {
        lines.push(format!("token: {}", token(after.worker.token_expires_at, now)));
    }
    if before.pending_update != after.pending_update && after.pending_update.is_some() {
        lines.push(format!("update: {}", update(after)));
    }
    let update = under_way(after);
    if under_way(before) != update {
        lines.push(format!("update: {}", update.unwrap_or_else(|| "none is under way".to_owned())));
    }
    lines.iter().map(|line| format!("{now} {line}\n")).collect()
}

fn containers_of(status: &Status) -> Option<String> {
    containers::headline(status.worker.containers.as_deref(), status.worker.containers_left_out)
}

fn gpus_of(status: &Status) -> String {
    let worker = &status.worker;
    gpus::headline(worker.gpu_driver.as_ref(), &worker.gpus, &worker.health)
}

/// Where the node is on its way to another version, if it is.
fn under_way(status: &Status) -> Option<String> {
    let UpdateReport { target, state, reason, .. } = &status.worker.update;
    let reason = reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    Some(format!("{}: {}{reason}", target.as_ref()?, progress(*state)))
}

fn update(status: &Status) -> String {
    let version = status.pending_update.as_ref().map_or("", |update| &update.version);
    paint(Tone::Doubtful, &format!("{version} is installed; restart the service to run it"))
}

fn token(ends: Timestamp, now: Timestamp) -> String {
    if ends == Timestamp::from_millis(i64::MAX) {
        "credentials of AIWM, which do not end".to_owned()
    } else if now >= ends {
        let ended = format!("ended {} ago", span(now.since(ends)));
        format!("{}, at {ends}", paint(Tone::Bad, &ended))
    } else {
        format!("ends in {}, at {ends}", span(ends.since(now)))
    }
}

fn code(session: &SessionSnapshot) -> String {
    session.code.as_ref().map(|code| paint(Tone::Bad, &format!(" [{code}]"))).unwrap_or_default()
}

fn painted(session: &SessionSnapshot) -> String {
    let (word, tone) = match session.state {
        SessionState::Waiting => ("waiting", Tone::Doubtful),
        SessionState::Connecting => ("connecting", Tone::Doubtful),
        SessionState::Registering => ("registering", Tone::Doubtful),
        SessionState::Online => ("online", Tone::Good),
        SessionState::Stopping => ("stopping", Tone::Faint),
    };
    paint(tone, word)
}

/// A length of time in its two largest units.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use aio_protocol::{container::Container, snapshot::WorkerSnapshot, update::UpdateState};

    use super::{super::PendingUpdate, *};
    use crate::{
        health::Judged,
        session::reporter::first_snapshot,
        telemetry::messages::tests::{full, identity},
    };

    const NOW: i64 = 1_765_454_400_000;

    pub(crate) fn snapshot() -> WorkerSnapshot {
        let gpu = Judged::clone(&full(1).gpu.unwrap());
        let started = Timestamp::from_millis(NOW - 3_725_000);
        let ends = Timestamp::from_millis(NOW + 90_000_000);
        let mut snapshot = first_snapshot(&identity(), "wss://aiwm.example/ws/node", ends, started);
        snapshot.session.state = SessionState::Online;
        snapshot.session.detail = "online at wss://aiwm.example/ws/node".into();
        snapshot.session.last_heartbeat_at = Some(Timestamp::from_millis(NOW - 4_000));
        snapshot.health = gpu.summary;
        snapshot.gpu_driver = Some(gpu.driver);
        snapshot.gpus = gpu.gpus;
        snapshot.gpu_status = gpu.details;
        snapshot
    }

    fn status() -> Status {
        Status { worker: snapshot(), pending_update: None }
    }

    #[test]
    fn one_screen_says_it_all() {
        assert_eq!(
            screen(&status(), Timestamp::from_millis(NOW)),
            "\
worker      1.0.0, up 1 h 2 min
node        69396100cd71623c7bbfbfee
session     online for 1 h 2 min
            online at wss://aiwm.example/ws/node
controller  wss://aiwm.example/ws/node
heartbeat   last acknowledged: 4 s ago
token       ends in 1 d 1 h, at 2025-12-12T13:00:00.000Z
GPUs        1, driver 550, ok
  0  NVIDIA H100  80.0 GiB of 80.0 GiB  100 %  88 °C  700 W  ok
"
        );
    }

    #[test]
    fn trouble_carries_its_code_and_an_ended_token_is_told() {
        let mut status = status();
        status.worker.session.state = SessionState::Waiting;
        status.worker.session.code = Some("TOKEN_EXPIRED".into());
        assert_eq!(
            token(Timestamp::from_millis(i64::MAX), Timestamp::from_millis(NOW)),
            "credentials of AIWM, which do not end"
        );
        status.worker.token_expires_at = Timestamp::from_millis(NOW - 61_000);
        let text = screen(&status, Timestamp::from_millis(NOW));
        assert!(text.contains("waiting for 1 h 2 min [TOKEN_EXPIRED]"), "{text}");
        assert!(text.contains("ended 1 min 1 s ago"), "{text}");
    }

    #[test]
    fn an_update_that_is_under_way_is_told_and_so_is_its_end() {
        let (before, now) = (status(), Timestamp::from_millis(NOW));
        let mut after = before.clone();
        after.worker.update.target = Some("v1.2.0".parse().unwrap());
        after.worker.update.state = UpdateState::Deferred;
        after.worker.update.reason = Some("v1.2.0 waits for the window Sat".into());
        let words = "v1.2.0: waiting (v1.2.0 waits for the window Sat)";
        assert_eq!(screen(&after, now).lines().nth(1).unwrap(), format!("update      {words}"));
        assert!(changes(&before, &after, now).contains(&format!("update: {words}")));
        assert!(changes(&after, &before, now).contains("update: none is under way"));
    }

    #[test]
    fn containers_are_told_where_there_are_any_and_one_more_is_a_change() {
        let (before, now) = (status(), Timestamp::from_millis(NOW));
        let mut after = before.clone();
        after.worker.containers = Some(vec![Container { id: "ab".into(), ..Container::default() }]);
        let text = screen(&after, now);
        assert!(text.ends_with("containers  1\n  ab  unknown  -  -  -  -  running\n"), "{text}");
        assert!(changes(&before, &after, now).ends_with(" containers: 1\n"));
        let mut busier = after.clone();
        busier.worker.containers.as_mut().unwrap()[0].cpu_usage = Some(50.0);
        assert_eq!(changes(&after, &busier, now), "");
        assert!(changes(&after, &before, now).ends_with(" containers: none\n"));
    }

    #[test]
    fn an_update_that_waits_for_a_restart_is_a_line() {
        let pending_update = Some(PendingUpdate { version: "1.2.0".into() });
        let text = screen(&Status { pending_update, ..status() }, Timestamp::from_millis(NOW));
        let second = text.lines().nth(1).unwrap();
        assert_eq!(second, "update      1.2.0 is installed; restart the service to run it");
    }

    #[test]
    fn a_change_is_a_line_and_a_heartbeat_is_none() {
        let (now, before) = (Timestamp::from_millis(NOW), status());
        let mut after = before.clone();
        after.worker.session.last_heartbeat_at = Some(now);
        after.worker.gpu_status[0].status.temperature = Some(40);
        assert_eq!(changes(&before, &after, now), "");
        after.worker.session.state = SessionState::Waiting;
        after.worker.session.code = Some("CONTROLLER_UNREACHABLE".into());
        after.worker.session.detail = "the controller does not answer".into();
        assert_eq!(
            changes(&before, &after, now),
            "2025-12-11T12:00:00.000Z waiting [CONTROLLER_UNREACHABLE]: the controller does not answer\n"
        );
        after = Status { pending_update: Some(PendingUpdate { version: "1.2.0".into() }), ..before.clone() };
        assert!(changes(&before, &after, now).contains("update: 1.2.0 is installed"));
    }
}
