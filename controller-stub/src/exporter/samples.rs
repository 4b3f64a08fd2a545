//! The samples for Prometheus and Grafana name figures that there are, and pass Prometheus' own checks.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::{catalogue::FIGURES, fleet};

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

fn known() -> BTreeSet<String> {
    let process = ["process_resident_memory_bytes", "process_cpu_seconds_total"];
    let own = FIGURES.iter().map(|figure| figure.name);
    own.chain(fleet::names()).chain(process).map(str::to_owned).collect()
}

/// The figures that a text names.
fn figures(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let figures =
        words.filter(|word| ["aio_", "http_", "process_", "DCGM_"].iter().any(|it| word.starts_with(it)));
    let family = |word: &str| {
        let base = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| word.strip_suffix(suffix));
        base.filter(|base| known().contains(*base)).unwrap_or(word).to_owned()
    };
    figures.map(family).collect()
}

/// Every `expr` and `query` below a value.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
            Value::String(text) if name == "expr" || name == "query" => found.push(text.clone()),
            value => queries(value, found),
        }),
        Value::Array(values) => values.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

#[test]
fn dashboards_and_rules_name_only_figures_that_there_are() {
    assert_eq!(figures("rate(aio_store_commit_seconds_bucket[5m])").len(), 1);
    for name in ["fleet", "node", "delivery"] {
        let text = fs::read_to_string(packaging().join(format!("grafana/{name}.json"))).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let mut found = Vec::new();
        queries(&dashboard, &mut found);
        assert!(found.len() > 10, "{name}: {found:?}");
        let named = figures(&found.join("\n"));
        let unknown: Vec<_> = named.difference(&known()).cloned().collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        let titles: Vec<_> = dashboard["panels"].as_array().unwrap().iter().map(|it| &it["title"]).collect();
        assert!(titles.iter().all(|title| title.is_string()), "{name}: {titles:?}");
    }
    let rules = fs::read_to_string(packaging().join("prometheus/aio-alerts.yml")).unwrap();
    let exprs: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    let unknown: Vec<_> = figures(&exprs.join("\n")).difference(&known()).cloned().collect();
    assert!(exprs.len() > 10 && unknown.is_empty(), "{unknown:?}");
}

#[test]
fn promtool_accepts_the_configuration_and_the_rules_do_what_their_tests_say() {
    for arguments in [
        &["check", "config", "--syntax-only", "prometheus.yml"][..],
        &["check", "rules", "aio-alerts.yml"],
        &["test", "rules", "aio-alerts.test.yml"],
    ] {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(packaging().join("prometheus"))
            .output()
            .expect("promtool, of Debian's package prometheus");
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "promtool {arguments:?}: {said}");
    }
}
