//! The first page: what is wrong first, then how many nodes are how, and the product's own measures against
//! their targets. Every number opens the list that it counted.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aio_protocol::{
    ids::NodeId,
    node::NodeStatus,
    telemetry::{Health, HealthSummary},
};
use askama::Template;
use axum::{extract::State, response::Response};

use super::{
    Pages,
    counts::{Count, status_counts},
    frame::{Frame, Tab},
    nodes::{NodePage, Row},
    session::Visitor,
    words,
};
use crate::{
    api::{error::Rejection, roles::Permission},
    clock,
    outbox::DeliveryState,
    store::{DeliveryNumbers, FleetNumbers, Service},
};

/// What the measures look back at: a week.
const PERIOD: Duration = Duration::from_secs(7 * 86_400);

/// So many nodes are shown of each kind of trouble.
const SHOWN: usize = 8;

/// Targets: the share of installations that succeed, how long one takes from its first report until its
/// worker is online, the share of events that are delivered and how long that takes, and the part of the time
/// that nodes are online.
const INSTALLED_PERCENT: u64 = 95;
const CONNECT: Duration = Duration::from_secs(60);
const DELIVERED_PERCENT: u64 = 99;
const LATENCY: Duration = Duration::from_millis(500);
const UPTIME_PERMILLE: u64 = 999;

/// A measure against its target.
struct Measure {
    name: &'static str,
    value: String,
    target: &'static str,
    detail: String,
    /// Nothing where there is nothing to measure.
    met: Option<bool>,
}

impl Measure {
    fn class(&self) -> &'static str {
        self.met.map_or("muted", |met| if met { "good" } else { "bad" })
    }

    fn verdict(&self) -> &'static str {
        self.met.map_or("nothing to measure", |met| if met { "target met" } else { "below target" })
    }
}

/// Nodes with one kind of trouble.
struct Trouble {
    title: &'static str,
    level: &'static str,
    count: u64,
    page: String,
    nodes: Vec<Row>,
    /// Whether there are more than these.
    more: bool,
}

/// Alarms of one kind that are not over.
struct AlarmCount {
    name: String,
    page: String,
    count: u64,
}

/// A version, and the part of the nodes that have it.
struct Version {
    name: String,
    page: String,
    count: u64,
    /// Of the largest count, in percent.
    share: u64,
}

#[derive(Template)]
#[template(path = "pages/overview.html")]
struct Overview {
    frame: Frame,
    total: u64,
    inactive: u64,
    statuses: Vec<Count>,
    healths: Vec<Count>,
    connected: u64,
    /// GPUs of connected nodes, as far as their workers have measured them.
    gpus: u64,
    /// Alarms that are not over, by kind.
    alarms: Vec<AlarmCount>,
    troubles: Vec<Trouble>,
    measures: Vec<Measure>,
    versions: Vec<Version>,
    delivery: DeliveryState,
    numbers: DeliveryNumbers,
}

pub(super) async fn redirect(visitor: Visitor) -> Response {
    visitor.scene.see_other("")
}

pub(super) async fn show(State(_): State<Arc<Pages>>, visitor: Visitor) -> Response {
    match build(&visitor).await {
        Ok(page) => visitor.scene.page(&page),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}

async fn build(visitor: &Visitor) -> Result<Overview, Rejection> {
    let (app, org) = (visitor.app(), &visitor.user().org_id);
    let since = clock::now().minus(PERIOD);
    let now = clock::now();
    let operator = visitor.may(Permission::Operate);
    let (numbers, delivery, connected, service, took, alarms) = tokio::try_join!(
        async { Ok::<_, Rejection>(app.store.fleet_numbers(org, since).await?) },
        async { Ok(app.store.delivery_numbers(org, since).await?) },
        connected_nodes(visitor),
        async { Ok(app.store.service(org, since, now).await?) },
        async { Ok(app.store.delivery_ms(org, since).await?) },
        async { Ok(app.store.alarm_counts(org, operator).await?) },
    )?;
    let (connected, gpus) = connected;
    let of = |status: NodeStatus| numbers.by_status.get(&status).copied().unwrap_or_default();
    let inactive = of(NodeStatus::Inactive);
    let total = numbers.by_status.values().sum::<u64>() - inactive;
    let is = |health: Health| connected.get(&health).copied().unwrap_or_default();
    let (unhealthy, failed, unheard, silent, degraded) = tokio::try_join!(
        trouble(
            visitor,
            "GPUs that must not be given work",
            "bad",
            "health=unhealthy",
            is(Health::Unhealthy)
        ),
        trouble(visitor, "Installation failed", "bad", "status=error", of(NodeStatus::Error)),
        trouble(visitor, "Not heard", "bad", "status=offline", of(NodeStatus::Offline)),
        trouble(visitor, "GPUs that nobody answers for", "warn", "health=unknown", is(Health::Unknown)),
        trouble(
            visitor,
            "GPUs with less than they should have",
            "warn",
            "health=degraded",
            is(Health::Degraded)
        ),
    )?;
    let troubles = [unhealthy, failed, unheard, silent, degraded].into_iter().flatten().collect();
    Ok(Overview {
        frame: Frame::new(&visitor.scene, Tab::Overview),
        total,
        inactive,
        statuses: status_counts(&numbers.by_status),
        connected: connected.values().sum(),
        gpus,
        alarms: alarms
            .into_iter()
            .map(|(kind, count)| AlarmCount {
                name: kind.replace('_', " "),
                page: format!("ui/alarms?kind={}", words::escaped(&kind)),
                count,
            })
            .collect(),
        healths: [Health::Unhealthy, Health::Unknown, Health::Degraded, Health::Ok]
            .map(|health| Count {
                name: health.as_str(),
                about: "",
                count: is(health),
                page: format!("ui/nodes?health={}", health.as_str()),
            })
            .into(),
        troubles,
        measures: measures(&numbers, &delivery, &took, service),
        versions: versions(&numbers.versions),
        delivery: app.outbox.delivery(),
        numbers: delivery,
    })
}

/// Some of the `count` nodes that `query` finds; nothing where there are none.
async fn trouble(
    visitor: &Visitor,
    title: &'static str,
    level: &'static str,
    query: &str,
    count: u64,
) -> Result<Option<Trouble>, Rejection> {
    if count == 0 {
        return Ok(None);
    }
    let listed: NodePage = visitor.api.get(&format!("/nodes?{query}&sort=name&limit={SHOWN}")).await?;
    let nodes: Vec<Row> = listed.data.into_iter().map(Row::from).collect();
    let more = count > nodes.len() as u64;
    Ok(Some(Trouble { title, level, count, page: format!("ui/nodes?{query}"), nodes, more }))
}

/// How many of the organisation's connected nodes are how, and how many GPUs they have.
async fn connected_nodes(visitor: &Visitor) -> Result<(HashMap<Health, u64>, u64), Rejection> {
    let all: HashMap<NodeId, HealthSummary> = visitor.app().registry.summaries().into_iter().collect();
    let (mut counts, mut gpus, now) = (HashMap::new(), 0, clock::now());
    for id in visitor.app().store.connected_nodes(&visitor.user().org_id).await? {
        if let Some(health) = all.get(&id) {
            *counts.entry(health.state).or_default() += 1;
        }
        visitor.app().telemetry.read(&id, now, |reading| gpus += reading.gpus.len() as u64);
    }
    Ok((counts, gpus))
}

/// What `percent` of these, which are sorted, stay within.
fn within(percent: usize, millis: &[u64]) -> Option<Duration> {
    let place = (millis.len() * percent).div_ceil(100).saturating_sub(1);
    millis.get(place).map(|ms| Duration::from_millis(*ms))
}

fn uptime(service: Service) -> Measure {
    let (online, offline) = (service.online.as_secs(), service.offline.as_secs());
    let all = online + offline;
    Measure {
        name: "Uptime of nodes",
        value: match (all, offline) {
            (0, _) => "–".to_owned(),
            (_, 0) => "100 %".to_owned(),
            // Never rounded up to what it is not.
            _ => format!("{}.{:02} %", online * 100 / all, online * 10_000 / all % 100),
        },
        target: "more than 99.9 %",
        detail: "online, of the time that nodes were online or offline in 7 days".to_owned(),
        met: (all > 0).then_some(online * 1000 > all * UPTIME_PERMILLE),
    }
}

fn measures(
    fleet: &FleetNumbers,
    delivery: &DeliveryNumbers,
    took: &[u64],
    service: Service,
) -> Vec<Measure> {
    let installed = fleet.installed_ms.len() as u64;
    let tried = installed + fleet.failed_installations;
    let at = |percent: usize| within(percent, &fleet.installed_ms);
    let events = delivery.delivered + delivery.dead;
    vec![
        Measure {
            name: "Installations that succeed",
            value: words::percent(installed, tried),
            target: "more than 95 %",
            detail: format!("{installed} of {tried} in 7 days"),
            met: (tried > 0).then_some(installed * 100 > tried * INSTALLED_PERCENT),
        },
        Measure {
            name: "Time to connect",
            value: at(95).map_or_else(|| "–".to_owned(), words::duration),
            target: "less than 60 s",
            detail: match at(50) {
                Some(median) => format!("95 % are faster; half take {} or less", words::duration(median)),
                None => "no installation ended in 7 days".to_owned(),
            },
            met: at(95).map(|time| time < CONNECT),
        },
        Measure {
            name: "Events delivered",
            value: words::percent(delivery.delivered, events),
            target: "more than 99 %",
            detail: format!(
                "{} of {events} in 7 days; {} on their way",
                delivery.delivered, delivery.waiting
            ),
            met: (events > 0).then_some(delivery.delivered * 100 > events * DELIVERED_PERCENT),
        },
        Measure {
            name: "Time to deliver an event",
            value: within(95, took).map_or_else(|| "–".to_owned(), words::duration),
            target: "less than 500 ms",
            detail: match within(50, took) {
                Some(median) => format!("95 % are faster; half take {} or less", words::duration(median)),
                None => "no event was received here in 7 days".to_owned(),
            },
            met: within(95, took).map(|time| time < LATENCY),
        },
        uptime(service),
    ]
}

fn versions(counted: &[(Option<String>, u64)]) -> Vec<Version> {
    let most = counted.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let version = |(name, count): &(Option<String>, u64)| Version {
        page: name
            .as_ref()
            .map_or_else(String::new, |name| format!("ui/nodes?version={}", words::escaped(name))),
        name: name.clone().unwrap_or_else(|| "never connected".to_owned()),
        count: *count,
        share: (count * 100).div_ceil(most),
    };
    counted.iter().map(version).collect()
}

impl DeliveryState {
    /// What it means for whoever reads it.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Running => "events are delivered",
            Self::Paused => "paused: the receiver failed too often; it goes on by itself",
            Self::Probing => "trying one event at a time",
            Self::Stopped => "stopped: the receiver answered 410; until somebody resumes it",
        }
    }
}
