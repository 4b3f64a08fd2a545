//! A node's containers as rows of a table: what each is called, what it uses, and what is wrong with it.

use aio_protocol::container::{Container, ContainerState};

use super::words;

/// A container as a row.
pub(super) struct Row {
    pub title: String,
    pub id: String,
    pub engine: &'static str,
    pub state: &'static str,
    pub class: &'static str,
    pub cpu: String,
    pub memory: String,
    pub gpus: String,
    pub restarts: String,
    pub problems: Vec<&'static str>,
}

pub(super) fn rows(containers: &[Container]) -> Vec<Row> {
    containers.iter().map(row).collect()
}

fn row(it: &Container) -> Row {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    let mut problems: Vec<_> = it.problems.iter().map(|problem| problem.in_words()).collect();
    if problems.is_empty() && it.oom_kills.is_some_and(|kills| kills > 0) {
        problems.push("was out of memory before");
    }
    Row {
        title: it.title(),
        id: it.id.clone(),
        engine: it.engine.as_str(),
        state: it.state.as_str(),
        class: match it.state {
            _ if !it.problems.is_empty() => "bad",
            ContainerState::Running => "good",
            ContainerState::Paused | ContainerState::Exited | ContainerState::Unknown => "",
        },
        cpu: or_dash(it.cpu_usage.map(|usage| format!("{usage:.0} %"))),
        memory: or_dash(it.memory_used.map(|used| match it.memory_limit {
            Some(limit) => format!("{} of {}", words::bytes(used), words::bytes(limit)),
            None => words::bytes(used),
        })),
        gpus: if it.gpus.is_empty() { "–".to_owned() } else { it.gpus.join(", ") },
        restarts: or_dash(it.restarts.map(|restarts| restarts.to_string())),
        problems,
    }
}
