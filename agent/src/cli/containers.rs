//! Containers as a screen shows them: how many there are, then a line each, those with something wrong first.
//! Pure.

use aio_protocol::container::Container;

use super::{
    gpus::{columns, gibibytes},
    paint::{Tone, paint},
};

/// Lines that a screen has for them.
const SHOWN: usize = 16;

/// What is shown where nobody says it.
const NOTHING: &str = "-";

/// How many there are, and how many have something wrong; nothing where there are none.
pub(super) fn headline(containers: Option<&[Container]>, left_out: u32) -> Option<String> {
    let containers = containers.filter(|containers| !containers.is_empty())?;
    let all = containers.len() + usize::try_from(left_out).unwrap_or(usize::MAX);
    let wrong = containers.iter().filter(|it| !it.problems.is_empty()).count();
    Some(match wrong {
        0 => all.to_string(),
        wrong => format!("{all}, {}", paint(Tone::Bad, &format!("{wrong} with something wrong"))),
    })
}

/// One line each, in columns, and how many have none.
pub(super) fn table(containers: Option<&[Container]>, left_out: u32) -> String {
    let containers = containers.unwrap_or_default();
    let rows: Vec<_> = containers.iter().take(SHOWN).map(row).collect();
    let rest = containers.len().saturating_sub(SHOWN) + usize::try_from(left_out).unwrap_or(usize::MAX);
    let mut text = columns(&rows);
    if rest > 0 {
        text.push_str(&format!("  and {rest} others\n"));
    }
    text
}

fn row(container: &Container) -> [String; 7] {
    let or_nothing = |value: Option<String>| value.unwrap_or_else(|| NOTHING.to_owned());
    let memory = container.memory_used.map(|used| match container.memory_limit {
        Some(limit) => format!("{} of {}", gibibytes(used), gibibytes(limit)),
        None => gibibytes(used),
    });
    let restarts = match container.restarts.unwrap_or_default() {
        0 => NOTHING.to_owned(),
        1 => "1 restart".to_owned(),
        restarts => format!("{restarts} restarts"),
    };
    let wrong: Vec<_> = container.problems.iter().map(|problem| problem.in_words()).collect();
    let state = match wrong.is_empty() {
        true => container.state.as_str().to_owned(),
        false => format!("{}, {}", container.state.as_str(), paint(Tone::Bad, &wrong.join(", "))),
    };
    let gpus = match container.gpus.as_slice() {
        [] => NOTHING.to_owned(),
        [one] => format!("GPU {one}"),
        several => format!("GPUs {}", several.join(" ")),
    };
    [
        container.title(),
        container.engine.as_str().to_owned(),
        or_nothing(container.cpu_usage.map(|usage| format!("{usage:.0} %"))),
        or_nothing(memory),
        gpus,
        restarts,
        state,
    ]
}

#[cfg(test)]
mod tests {
    use aio_protocol::container::{ContainerEngine, ContainerProblem, ContainerState};

    use super::*;

    #[test]
    fn containers_stand_in_columns_and_what_is_wrong_is_said() {
        let plain = Container {
            id: "0123456789abcdef".into(),
            engine: ContainerEngine::Docker,
            cpu_usage: Some(150.4),
            memory_used: Some(4 << 30),
            memory_limit: Some(8 << 30),
            restarts: Some(0),
            gpus: vec!["0".into(), "3".into()],
            ..Container::default()
        };
        let ill = Container {
            name: Some("web".into()),
            state: ContainerState::Exited,
            restarts: Some(7),
            problems: vec![ContainerProblem::Restarting, ContainerProblem::OomKilled],
            ..Container::default()
        };
        assert_eq!(headline(Some(&[]), 0), None);
        assert_eq!(headline(Some(std::slice::from_ref(&plain)), 2).as_deref(), Some("3"));
        assert_eq!(
            headline(Some(&[ill.clone(), plain.clone()]), 0).as_deref(),
            Some("2, 1 with something wrong")
        );
        assert_eq!(
            table(Some(&[ill, plain.clone()]), 1),
            "  web           unknown  -      -                   -         7 restarts  exited, restarts again and again, out of memory\n  \
               0123456789ab  docker   150 %  4.0 GiB of 8.0 GiB  GPUs 0 3  -           running\n  \
               and 1 others\n"
        );
        assert!(table(Some(&vec![plain; 20]), 0).ends_with("  and 4 others\n"));
    }
}
