//! A node's GPUs as cards: what the inventory says of each, what it measures now, what is wrong with it, and
//! its last day as lines. A line is one `polyline` per stretch that something is known of, which is all that
//! these charts need: a crate for charts would bring scales, fonts and styles that the pages' policy forbids.

use std::{collections::HashMap, time::Duration};

use aio_protocol::{
    inventory::{self, SystemInfo},
    telemetry::{Finding, GpuActivity, GpuDetail, Health, HealthSummary, MachineProblem},
    time::Timestamp,
};
use serde::Deserialize;

use super::words;

/// What the lines show.
const DAY: Duration = Duration::from_secs(86_400);

/// From a point to the next.
pub(super) const STEP: Duration = Duration::from_secs(600);

/// A chart's height, in its own units; its width is a unit for each point.
const HEIGHT: f64 = 40.0;

/// `GET /nodes/{id}/metrics`, as far as it is shown.
#[derive(Deserialize)]
pub(super) struct Measured {
    newest: Option<Newest>,
    #[serde(default)]
    points: Vec<Point>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Newest {
    at: Timestamp,
    #[serde(default)]
    cpu_usage: f64,
    #[serde(default)]
    memory_used: u64,
    #[serde(default)]
    gpu: Vec<GpuDetail>,
    #[serde(default)]
    problems: Vec<MachineProblem>,
}

#[derive(Deserialize)]
struct Point {
    at: Timestamp,
    #[serde(default)]
    gpu: Vec<GpuPoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GpuPoint {
    device_id: String,
    utilization: Option<Range>,
    memory_used: Option<Range>,
    temperature: Option<Range>,
    power_draw: Option<Range>,
}

#[derive(Clone, Copy, Deserialize)]
struct Range {
    mean: f64,
    max: f64,
}

/// A GPU as a card.
pub(super) struct Gpu {
    pub name: String,
    pub model: String,
    /// The class of the card: a health, or `missing`.
    pub state: &'static str,
    /// What it measures, each with its day.
    pub figures: Vec<Figure>,
    pub facts: Vec<(&'static str, String)>,
    pub findings: Vec<(String, String)>,
}

/// Something that a GPU measures.
pub(super) struct Figure {
    pub name: &'static str,
    /// The class of its line.
    pub class: &'static str,
    /// Empty while nobody says it.
    pub value: String,
    /// The stretches of its day.
    pub lines: Vec<String>,
    /// The day in words.
    pub about: String,
}

/// The width of a chart, in its own units.
pub(super) fn width() -> u64 {
    DAY.as_secs() / STEP.as_secs()
}

pub(super) fn cards(
    info: &SystemInfo,
    health: Option<&HealthSummary>,
    measured: Option<&Measured>,
    now: Timestamp,
) -> Vec<Gpu> {
    let newest = measured.and_then(|it| it.newest.as_ref());
    let details: HashMap<_, _> =
        newest.iter().flat_map(|it| &it.gpu).map(|gpu| (gpu.status.device_id.as_str(), gpu)).collect();
    let points = measured.map_or(&[][..], |it| &it.points);
    let hardware = &info.hardware;
    let there = hardware.gpu.iter().map(|gpu| {
        let detail = details.get(gpu.device_id.as_str()).copied();
        Gpu {
            state: state(gpu, detail, health, hardware.gpu.len()),
            figures: figures(gpu, detail, points, now),
            findings: detail.map(|detail| findings(&detail.findings)).unwrap_or_default(),
            ..card(gpu)
        }
    });
    let missing = hardware.missing_gpu.iter().map(|gpu| Gpu { state: "missing", ..card(gpu) });
    there.chain(missing).collect()
}

/// What the machine itself measures now.
pub(super) fn host(measured: Option<&Measured>) -> Vec<(&'static str, String)> {
    let Some(newest) = measured.and_then(|it| it.newest.as_ref()) else { return Vec::new() };
    vec![
        ("processor busy", format!("{:.0} %", newest.cpu_usage)),
        ("memory used", words::bytes(newest.memory_used)),
        ("measured", words::plain_time(&newest.at)),
    ]
}

/// What is wrong with the machine itself.
pub(super) fn problems(measured: Option<&Measured>) -> Vec<String> {
    let newest = measured.and_then(|it| it.newest.as_ref());
    newest.iter().flat_map(|it| &it.problems).map(|problem| problem.reason.clone()).collect()
}

fn card(gpu: &inventory::Gpu) -> Gpu {
    let mut facts = Vec::new();
    let mut add = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    add("memory", gpu.memory_total.map(words::bytes));
    add("ECC", gpu.ecc.map(|on| if on { "on" } else { "off" }.to_owned()));
    add("PCIe", gpu.pcie.as_ref().map(|it| format!("{}.0 x{}", it.generation, it.width)));
    add("NVLinks", gpu.nvlinks.map(|links| links.to_string()));
    let mig = gpu.mig.as_ref().filter(|mig| mig.enabled);
    add("MIG", mig.map(|mig| words::counted(&(mig.instances.len() as u64), "instance")));
    Gpu {
        name: gpu.device_id.clone(),
        model: gpu.model.clone(),
        state: "unknown",
        figures: Vec::new(),
        facts,
        findings: Vec::new(),
    }
}

/// How a GPU is: by what it measured, or, until it has told that, by what the summary says of the worst.
fn state(
    gpu: &inventory::Gpu,
    detail: Option<&GpuDetail>,
    health: Option<&HealthSummary>,
    gpus: usize,
) -> &'static str {
    let Some(health) = health else { return "unknown" };
    let worst = health.worst.as_deref().unwrap_or_default();
    let named = worst.strip_prefix("GPU ").and_then(|rest| rest.strip_prefix(gpu.device_id.as_str()));
    let named = gpus == 1 || named.is_some_and(|rest| rest.starts_with([':', ' ']));
    // A heartbeat tells what is wrong sooner than the next measurement. A driver that does not answer says
    // nothing of any of them.
    let told = if named || health.state == Health::Unknown { health.state } else { Health::Ok };
    detail.map_or(told, |detail| detail.status.health.max(told)).as_str()
}

fn findings(found: &[Finding]) -> Vec<(String, String)> {
    let words = |it: &Finding| (it.reason.clone(), it.action.in_words().unwrap_or_default().to_owned());
    found.iter().map(words).collect()
}

fn figures(
    gpu: &inventory::Gpu,
    detail: Option<&GpuDetail>,
    points: &[Point],
    now: Timestamp,
) -> Vec<Figure> {
    let status = detail.map(|it| &it.status).filter(|it| it.status == GpuActivity::Active);
    let of = |value: Option<String>| value.unwrap_or_default();
    let memory = gpu.memory_total.unwrap_or_default() as f64;
    let power = detail.and_then(|it| it.power_limit).map_or(0.0, f64::from);
    let line =
        |pick: fn(&GpuPoint) -> Option<Range>, full: f64| lines(points, &gpu.device_id, pick, full, now);
    let figure = |name, class, value, (lines, about): (Vec<String>, String)| Figure {
        name,
        class,
        value,
        lines,
        about,
    };
    let figures = [
        figure(
            "busy",
            "busy",
            of(status.and_then(|it| it.utilization).map(|it| format!("{it} %"))),
            line(|it| it.utilization, 100.0),
        ),
        figure(
            "memory used",
            "memory",
            of(status.and_then(|it| it.memory_used).map(words::bytes)),
            line(|it| it.memory_used, memory),
        ),
        figure(
            "temperature",
            "heat",
            of(status.and_then(|it| it.temperature).map(|it| format!("{it} °C"))),
            line(|it| it.temperature, 100.0),
        ),
        figure(
            "power",
            "power",
            of(status.and_then(|it| it.power_draw).map(|it| format!("{it} W"))),
            line(|it| it.power_draw, power),
        ),
    ];
    figures.into_iter().filter(|it| !it.value.is_empty() || !it.lines.is_empty()).collect()
}

/// The day of a series as stretches of a polyline, and in words. `full` is what the chart's height stands
/// for; the greatest value where nobody says that, or it is less.
fn lines(
    points: &[Point],
    device: &str,
    pick: fn(&GpuPoint) -> Option<Range>,
    full: f64,
    now: Timestamp,
) -> (Vec<String>, String) {
    let begins = now.minus(DAY);
    let value = |point: &Point| {
        let of_device = point.gpu.iter().find(|gpu| gpu.device_id == device)?;
        let place = point.at.since(begins).as_secs() / STEP.as_secs();
        Some((place, pick(of_device)?))
    };
    let known: Vec<_> = points.iter().filter_map(value).collect();
    let most = known.iter().map(|(_, range)| range.max).fold(0.0, f64::max);
    if known.is_empty() {
        return (Vec::new(), String::new());
    }
    let full = full.max(most).max(1.0);
    let (mut stretches, mut last) = (Vec::<String>::new(), None);
    for (place, range) in &known {
        let height = HEIGHT - (range.mean / full).clamp(0.0, 1.0) * (HEIGHT - 2.0) - 1.0;
        let corner = format!("{place},{height:.1}");
        match stretches.last_mut().filter(|_| last == place.checked_sub(1)) {
            Some(stretch) => {
                stretch.push(' ');
                stretch.push_str(&corner);
            }
            None => stretches.push(corner),
        }
        last = Some(*place);
    }
    let mean = known.iter().map(|(_, range)| range.mean).sum::<f64>() / known.len() as f64;
    (
        stretches,
        format!(
            "the last day: {:.0} % of full on average, {:.0} % at most",
            mean * 100.0 / full,
            most * 100.0 / full
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_tells_of_the_gpu_that_it_names_until_the_gpu_is_measured() {
        let gpu = inventory::Gpu { device_id: "2".to_owned(), ..inventory::Gpu::default() };
        let summary = |state, worst: &str| HealthSummary {
            state,
            worst: Some(worst.to_owned()),
            ..HealthSummary::default()
        };
        for (state, worst, shown) in [
            (Health::Unhealthy, "GPU 2: Xid 79", "unhealthy"),
            (Health::Degraded, "GPU 2 is degraded", "degraded"),
            (Health::Unhealthy, "GPU 21: Xid 2", "ok"),
            (Health::Unhealthy, "2 of 8 GPUs missing: 7 and others", "ok"),
            (Health::Unknown, "the driver does not answer", "unknown"),
        ] {
            assert_eq!(super::state(&gpu, None, Some(&summary(state, worst)), 8), shown, "{worst}");
        }
        assert_eq!(super::state(&gpu, None, None, 8), "unknown", "not connected");
    }

    #[test]
    fn a_line_ends_where_nothing_is_known_and_stays_in_its_chart() {
        let now = Timestamp::from_millis(1_765_454_400_000);
        let point = |minutes: u64, mean: f64| Point {
            at: now.minus(Duration::from_secs(minutes * 60)),
            gpu: vec![GpuPoint {
                device_id: "0".to_owned(),
                utilization: Some(Range { mean, max: mean }),
                memory_used: None,
                temperature: None,
                power_draw: None,
            }],
        };
        let points = [point(1440, 0.0), point(1430, 50.0), point(60, 100.0), point(50, 150.0)];
        let (stretches, about) = lines(&points, "0", |it| it.utilization, 100.0, now);
        assert_eq!(stretches, ["0,39.0 1,26.3", "138,13.7 139,1.0"]);
        assert_eq!(about, "the last day: 50 % of full on average, 100 % at most");
        assert!(lines(&points, "1", |it| it.utilization, 100.0, now).0.is_empty(), "another GPU");
        assert!(lines(&points, "0", |it| it.power_draw, 100.0, now).0.is_empty(), "another series");
    }
}
