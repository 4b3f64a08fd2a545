//! axe-core, the checker of accessibility, fetched for the test and kept nowhere.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use tokio::task::spawn_blocking;

use super::webdriver::Chromium;

/// What a page is checked with.
pub(crate) struct Axe(String);

impl Axe {
    /// Fetches it; nothing where it cannot be had, which is said.
    pub(crate) async fn fetched() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/axe");
        for name in ["package.json", "package-lock.json"] {
            std::fs::copy(source.join(name), folder.path().join(name)).unwrap();
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--prefer-offline"]).current_dir(folder.path());
        let installed = spawn_blocking(move || npm.stdin(Stdio::null()).output()).await.unwrap();
        let script = std::fs::read_to_string(folder.path().join("node_modules/axe-core/axe.min.js"));
        match (installed, script) {
            (Ok(_), Ok(script)) => Some(Self(script)),
            (installed, _) => {
                let why = installed.map(|it| String::from_utf8_lossy(&it.stderr).into_owned());
                eprintln!("NOT CHECKED: accessibility, because axe-core cannot be fetched: {why:?}");
                None
            }
        }
    }

    /// The serious findings on the page that is open.
    pub(crate) async fn findings(&self, browser: &Chromium) -> Vec<String> {
        browser.run(&self.0).await;
        let script = "const done = arguments[arguments.length - 1]; \
            axe.run(document, { resultTypes: ['violations'] }).then(result => done(result.violations \
                .filter(it => ['serious', 'critical'].includes(it.impact)) \
                .map(it => `${it.id}: ${it.nodes.map(node => node.html).slice(0, 3).join(' ')}`)))";
        let found = browser.run_async(script).await;
        found.as_array().unwrap().iter().map(Value::to_string).collect()
    }
}
