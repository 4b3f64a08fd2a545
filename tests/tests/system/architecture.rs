//! Who may depend on whom: the arrows point down only.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Each crate of the workspace, and which others it may use. What its tests use stands under the same rule.
const ALLOWED: &[(&str, &[&str])] = &[
    ("aio-protocol", &[]),
    ("aio-host", &["aio-protocol"]),
    ("aio-logging", &[]),
    ("aio-installer", &["aio-protocol", "aio-host"]),
    ("aio-worker", &["aio-protocol", "aio-host", "aio-installer", "aio-logging"]),
    ("controller-stub", &["aio-protocol", "aio-logging"]),
    ("aio-tests", &["aio-protocol", "aio-host", "aio-installer", "aio-worker", "controller-stub"]),
    ("aio-fleet", &["aio-protocol", "aio-worker", "aio-tests"]),
    ("fake-nvml", &[]),
    ("xtask", &["aio-protocol"]),
];

/// Doubles of what lies outside the workspace; the tests of any crate may use them.
const DOUBLES: &[&str] = &["fake-nvml"];

/// What would make the words that both ends share depend on a machine: the protocol crate has no
/// I/O, clock or randomness.
const IMPURE: &[&str] = &["tokio", "reqwest", "axum", "rustix", "fastrand", "tempfile", "sysinfo", "zbus"];

#[test]
fn no_crate_depends_on_one_that_the_design_does_not_allow() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let members: BTreeSet<_> = metadata.packages.iter().map(|package| package.name.to_string()).collect();
    let listed: BTreeSet<_> = allowed.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(members, listed, "a crate has no row in this test's table, or a row has no crate");
    for package in &metadata.packages {
        let may_use = allowed[package.name.as_str()];
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            let double = DOUBLES.contains(&name) && dependency.kind == DependencyKind::Development;
            assert!(
                !members.contains(name) || double || may_use.contains(&name),
                "{} depends on {}, and may only on {may_use:?}",
                package.name,
                name
            );
        }
    }
}

#[test]
fn a_workers_release_holds_nothing_of_the_controllers_document() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    for package in ["aio-worker", "aio-installer"] {
        let tree = std::process::Command::new(&cargo)
            .args(["tree", "--offline", "--edges", "normal", "--prefix", "none", "--package", package])
            .output()
            .unwrap();
        let tree = String::from_utf8(tree.stdout).unwrap();
        assert!(tree.contains("aio-protocol"), "{tree}");
        assert!(
            !tree.contains("utoipa"),
            "{package} compiles the schemas that only the controller publishes:\n{tree}"
        );
    }
}

#[test]
fn the_protocol_depends_on_nothing_that_touches_a_machine() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let protocol = metadata.packages.iter().find(|package| package.name.as_str() == "aio-protocol").unwrap();
    for dependency in &protocol.dependencies {
        assert!(!IMPURE.contains(&dependency.name.as_str()), "aio-protocol depends on {}", dependency.name);
    }
}
