//! Names of nodes that are named together: numbered ones, each once, and which of them can be hosts
//! of an inventory. What a name is at all is `NodeName`'s to say, and whether another node has it
//! the database's.

use std::collections::BTreeSet;

use super::CommandError;

/// Numbers have at least so many digits, so that names sort as their numbers do.
const DIGITS: usize = 3;

/// So many names are shown of those that stand in the way.
const SHOWN: usize = 3;

/// `{prefix}-001`, `{prefix}-002`, …: `count` names, the first with the number `first`.
pub fn numbered(prefix: &str, first: u32, count: u32) -> Result<Vec<String>, CommandError> {
    let last = first.checked_add(count.saturating_sub(1)).ok_or_else(|| {
        CommandError::Numbers(format!("{count} nodes from number {first} on go beyond {}", u32::MAX))
    })?;
    let digits = last.to_string().len().max(DIGITS);
    Ok((first..=last).map(|number| format!("{prefix}-{number:0digits$}")).collect())
}

/// Fails unless each of the names can be a host of an Ansible inventory, which reads brackets,
/// colons and the like as more than a name.
pub(super) fn hosts(names: &[String]) -> Result<(), CommandError> {
    let fits = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    match names.iter().find(|name| !fits(name)) {
        Some(name) => Err(CommandError::NoHost(name.clone())),
        None => Ok(()),
    }
}

/// Fails unless there is one name.
pub(super) fn one_machine(names: &[String]) -> Result<(), CommandError> {
    match names.len() {
        1 => Ok(()),
        several => Err(CommandError::SeveralMachines(several)),
    }
}

/// The names, unless one of them stands twice.
pub(super) fn each_once(names: Vec<String>) -> Result<Vec<String>, CommandError> {
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(CommandError::Twice(twice.clone())),
        None => Ok(names),
    }
}

/// The first of these names, and how many there are beside them.
pub(super) fn listed(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(SHOWN);
    match (names.len(), more) {
        (1, _) => format!("the node {} is", shown.join(", ")),
        (_, 0) => format!("the nodes {} are", shown.join(", ")),
        _ => format!("the nodes {} and {more} more are", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_of_one_width_and_go_on_where_they_are_told_to() {
        let names = |first, count| numbered("gpu", first, count).unwrap();
        assert_eq!(names(1, 2), ["gpu-001", "gpu-002"]);
        assert_eq!(names(101, 1), ["gpu-101"]);
        assert_eq!((names(1, 1000)[0].as_str(), names(1, 1000)[999].as_str()), ("gpu-0001", "gpu-1000"));
        assert!(numbered("gpu", u32::MAX, 2).is_err());
    }

    #[test]
    fn what_an_inventory_reads_as_more_than_a_name_is_no_host() {
        let check = |name: &str| hosts(&[name.to_owned()]);
        for name in ["gpu-001", "rack7.example", "7", "a_b"] {
            check(name).unwrap();
        }
        for name in ["gpu[1:3]", "a:22", "a,b", "gpu 1", "-x", "Gerät", "!a", "{{ x }}", ""] {
            assert!(check(name).is_err(), "{name}");
        }
    }

    #[test]
    fn many_taken_names_are_counted_and_not_all_shown() {
        let names = |count: u32| numbered("n", 1, count).unwrap();
        assert_eq!(listed(&names(1)), "the node `n-001` is");
        assert_eq!(listed(&names(2)), "the nodes `n-001`, `n-002` are");
        assert_eq!(listed(&names(100)), "the nodes `n-001`, `n-002`, `n-003` and 97 more are");
    }
}
