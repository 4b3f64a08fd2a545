//! For the tests with hostile input: every body and every query of the API, how it is read, and texts of it
//! that are taken.

use aio_protocol::installation::InstallationReport;
use axum::{extract::Query, http::Uri};
use serde::de::DeserializeOwned;

use super::{
    alarms, audit,
    body::{NoFields, parse},
    dashboards, dead_letters,
    error::Rejection,
    events, fleet, installation, nodes, rollouts, telemetry, token, transitions, updates, webhooks,
};

/// A kind of input.
pub(crate) struct Input {
    pub name: &'static str,
    /// What is taken.
    pub seeds: &'static [&'static str],
    /// Reads it as the handlers do; the error is the refusal's message. Any other answer than 400
    /// `VALIDATION_FAILED` is a panic.
    pub read: fn(&[u8]) -> Result<(), String>,
}

pub(crate) const BODIES: [Input; 13] = [
    Input {
        name: "registration",
        seeds: &[
            r#"{"name":"gpu-worker-01"}"#,
            r#"{"name":"gpu-worker-01","role":["worker","storage"],"labels":{"rack":"r7","example.com/gpu":""}}"#,
        ],
        read: body::<nodes::Registration>,
    },
    Input {
        name: "change",
        seeds: &["{}", r#"{"name":"gpu-worker-02","labels":{"rack":null,"zone":"a"}}"#],
        read: body::<nodes::Changes>,
    },
    Input {
        name: "token request",
        seeds: &[
            "{}",
            r#"{"expiresIn":3600,"osType":"linux","installMethod":"systemd","daemonVersion":"v1.0.0"}"#,
        ],
        read: body::<token::TokenRequest>,
    },
    Input {
        name: "rollout",
        seeds: &[
            r#"{"version":"v1.1.0"}"#,
            r#"{"version":"v1.1.0","group":"gpu","canaries":"2","soakSeconds":0,"waves":[50,100],"wavePauseSeconds":0,"inFlight":"5%","urgent":true,"dryRun":true}"#,
        ],
        read: body::<rollouts::NewRollout>,
    },
    Input { name: "order", seeds: &["{}", r#"{"revert":true}"#], read: body::<rollouts::OrderOptions> },
    Input { name: "pin", seeds: &[r#"{"version":"v1.0.0"}"#], read: body::<updates::PinRequest> },
    Input { name: "update", seeds: &["{}", r#"{"version":"v1.0.0"}"#], read: body::<updates::UpdateRequest> },
    Input {
        name: "group",
        seeds: &["{}", r#"{"pin":"v1.0.0","deferWhileGpuAbove":50,"inFlight":"2"}"#],
        read: body::<updates::GroupSettings>,
    },
    Input {
        name: "silence",
        seeds: &[
            r#"{"nodeId":"69396100cd71623c7bbfbfee","seconds":60,"reason":"a new disk"}"#,
            r#"{"label":"rack=r7","seconds":3600,"reason":"x"}"#,
        ],
        read: body::<alarms::NewSilence>,
    },
    Input {
        name: "webhook",
        seeds: &[
            r#"{"url":"https://hooks.example.com/aio"}"#,
            r#"{"url":"https://hooks.example.com/aio","description":"pager","eventTypes":["alarm.raised"]}"#,
        ],
        read: body::<webhooks::NewWebhook>,
    },
    Input {
        name: "webhook changes",
        seeds: &["{}", r#"{"eventTypes":[]}"#],
        read: body::<webhooks::WebhookChanges>,
    },
    Input { name: "no fields", seeds: &["{}"], read: body::<NoFields> },
    Input {
        name: "report",
        seeds: &[
            r#"{"phase":"started","version":"v1.0.0"}"#,
            r#"{"phase":"progress","step":"fetch_release","percent":40}"#,
            r#"{"phase":"failed","step":"fetch_release","error":{"code":"CHECKSUM_MISMATCH","message":"It differs","details":{"actual":"b"}}}"#,
            r#"{"phase":"succeeded","seconds":2.5}"#,
        ],
        read: report,
    },
];

pub(crate) const QUERIES: [Input; 12] = [
    Input {
        name: "nodes",
        seeds: &["page=2&limit=50&status=online,offline&name=gpu-*&label=rack=r7,gpu&sort=-createdAt"],
        read: query::<nodes::Filter>,
    },
    Input {
        name: "events",
        seeds: &[
            "nodeId=69396100cd71623c7bbfbfee&since=evt_01890a5dac96774bbcceb302099a8057&limit=1000",
            "since=2025-12-11T12%3A00%3A00.000Z",
        ],
        read: query::<events::Filter>,
    },
    Input {
        name: "audit",
        seeds: &[
            "actor=user:u&since=2025-12-11T12:00:00+01:00&until=2025-12-11T12:00:00Z&cursor=7&format=csv",
        ],
        read: query::<audit::Filter>,
    },
    Input { name: "plan", seeds: &["platform=linux-amd64"], read: query::<installation::For> },
    Input { name: "transitions", seeds: &["page=1&limit=100"], read: query::<transitions::Which> },
    Input {
        name: "metrics",
        seeds: &["from=2025-12-11T12:00:00Z&to=2025-12-11T13:00:00Z&step=600"],
        read: query::<telemetry::Span>,
    },
    Input {
        name: "alarms",
        seeds: &["page=1&limit=100&nodeId=69396100cd71623c7bbfbfee&resolved=true&kind=gpu_health"],
        read: query::<alarms::Filter>,
    },
    Input { name: "fleet", seeds: &["shard=1/8&names=dcgm"], read: query::<fleet::Which> },
    Input { name: "rollouts", seeds: &["page=1&limit=100"], read: query::<rollouts::Pages> },
    Input {
        name: "rollout nodes",
        seeds: &["page=1&limit=100&stage=faulty"],
        read: query::<rollouts::WhichNodes>,
    },
    Input { name: "dead letters", seeds: &["page=1&limit=100"], read: query::<dead_letters::Pages> },
    Input { name: "dashboard", seeds: &["since=evt_1"], read: query::<dashboards::From> },
];

fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<(), String> {
    parse::<T>(bytes).map(drop).map_err(told)
}

fn report(bytes: &[u8]) -> Result<(), String> {
    let report = parse::<installation::Report>(bytes);
    report
        .and_then(|report| InstallationReport::try_from(report).map(drop).map_err(Rejection::field))
        .map_err(told)
}

fn query<T: DeserializeOwned>(bytes: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(bytes);
    let Ok(uri) = Uri::builder().path_and_query(format!("/?{text}")).build() else {
        return Err("no query of a request".to_owned());
    };
    Query::<T>::try_from_uri(&uri).map(drop).map_err(|rejection| told(rejection.into()))
}

/// The message of a refusal, which is by the form alone.
fn told(refusal: Rejection) -> String {
    let text = format!("{refusal:?}");
    assert!(text.contains("status: 400") && text.contains("ValidationFailed"), "{text}");
    // Without the names of the refusal's own fields, which are names of bodies' fields, too.
    let message = text.split_once("message: ").map_or("", |(_, rest)| rest);
    message.split(", allowed: ").next().unwrap_or_default().to_owned()
}
