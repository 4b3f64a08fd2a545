//! What was on the machine before this installer: the unit that the older script or an admin wrote.
//! Reads what such a unit sets, so that nothing is lost when ours takes its place. Decides nothing:
//! `plan` does.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use aio_protocol::{claims::NodeClaims, ids::NodeId};

/// What a unit that is not ours tells the daemon by its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OlderUnit {
    /// Where a copy of it can be kept: a name that is free.
    pub(crate) backup: PathBuf,
    /// `AIO_CONTROLLER_ENDPOINT`.
    pub(crate) controller_endpoint: Option<String>,
    /// The node that it speaks for, after `AIO_NODE_ID` or the token in it.
    pub(crate) node: Option<NodeId>,
}

impl OlderUnit {
    /// Reads a unit file's `Environment=` lines; what they set otherwise stays in the copy of the
    /// file.
    pub(crate) fn read(path: &Path, text: &str) -> Self {
        let variables = environment(text);
        let value =
            |name: &str| variables.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
        let of_token = || Some(NodeClaims::read_unverified(value("AIO_NODE_TOKEN")?).ok()?.sub);
        Self {
            backup: free_name(path, "bak"),
            controller_endpoint: value("AIO_CONTROLLER_ENDPOINT").map(str::to_owned),
            node: value("AIO_NODE_ID").and_then(|id| id.parse().ok()).or_else(of_token),
        }
    }
}

/// The variables that a unit sets, as systemd.exec(5) has it: quoted words, a later one wins, an
/// empty assignment forgets all before.
fn environment(text: &str) -> HashMap<String, String> {
    let mut variables = HashMap::new();
    for line in text.replace("\\\n", " ").lines() {
        let Some(value) = line.trim().strip_prefix("Environment=") else { continue };
        if value.trim().is_empty() {
            variables.clear();
        }
        // What is not quoted rightly systemd ignores as well.
        for word in shlex::split(value).unwrap_or_default() {
            if let Some((name, value)) = word.split_once('=') {
                variables.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    variables
}

/// The first name beside `path` that is free: with this suffix, then with `.1` and so on behind it.
pub(crate) fn free_name(path: &Path, suffix: &str) -> PathBuf {
    let named = |suffix: String| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let numbered = (1_u32..).map(|number| named(format!(".{suffix}.{number}")));
    let first = named(format!(".{suffix}"));
    let mut names = std::iter::once(first.clone()).chain(numbered);
    names.find(|name| name.symlink_metadata().is_err()).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "69396100cd71623c7bbfbfee";

    #[test]
    fn the_script_s_unit_says_where_the_controller_is_and_which_node_it_is() {
        let text = format!(
            "[Service]\nEnvironment=\"AIO_NODE_TOKEN=no.token.here\"\n\
             Environment=\"AIO_CONTROLLER_ENDPOINT=ws://localhost:3305/ws/node\"\n\
             Environment=\"AIO_NODE_ID={NODE}\"\nExecStart=/usr/local/bin/aio-worker start\n"
        );
        let read = OlderUnit::read(Path::new("/x"), &text);
        assert_eq!(read.controller_endpoint.as_deref(), Some("ws://localhost:3305/ws/node"));
        assert_eq!(read.node.unwrap().as_str(), NODE);
    }

    #[test]
    fn variables_are_read_as_systemd_reads_them() {
        let read = |text: &str| OlderUnit::read(Path::new("/x"), text).controller_endpoint;
        let endpoint = |value: &str| format!("AIO_CONTROLLER_ENDPOINT={value}");
        assert_eq!(read(&format!("Environment=A=b '{}'\n", endpoint("c d"))).as_deref(), Some("c d"));
        assert_eq!(read(&format!("Environment=A=b \\\n {}\n", endpoint("next"))).as_deref(), Some("next"));
        assert_eq!(read(&format!("Environment={}\nEnvironment=\n", endpoint("x"))), None);
        assert_eq!(read(&format!("#Environment={}\n", endpoint("x"))), None);
        assert_eq!(read(&format!("Environment=\"{}\n", endpoint("unclosed"))), None);
        assert_eq!(read("[Service]\nExecStart=x\n"), None);
    }

    #[test]
    fn no_copy_takes_the_place_of_an_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aio-worker.service");
        for expected in ["aio-worker.service.bak", "aio-worker.service.bak.1", "aio-worker.service.bak.2"] {
            let free = free_name(&path, "bak");
            assert_eq!(free, dir.path().join(expected));
            std::fs::write(free, "").unwrap();
        }
    }
}
