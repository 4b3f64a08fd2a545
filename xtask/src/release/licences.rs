//! The text of `THIRD-PARTY-LICENSES`: what the programs hold of others, under which licence, and
//! the licences' texts as their authors ship them. Of a package that ships no text, the licence's
//! standard text stands, with the authors that the package names. The same on every platform.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::Path,
};

use aio_protocol::release::Platform;
use anyhow::{Context, Result, ensure};
use cargo_metadata::{MetadataCommand, Package};

use crate::{portable, step};

/// What is built together and so shares its dependencies.
const SHIPPED: [&str; 3] = ["aio-worker", "aio-installer", "controller-stub"];

/// How the names of licences' files begin.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

pub(super) fn text() -> Result<String> {
    let shipped = shipped()?;
    let mut metadata = MetadataCommand::new();
    metadata.current_dir(step::root()).other_options(["--locked".to_owned()]);
    let packages = metadata.exec().context("cannot ask cargo where the dependencies lie")?.packages;
    let theirs = packages.iter().filter(|package| {
        package.source.is_some() && shipped.contains(&(package.name.to_string(), package.version.to_string()))
    });
    let mut parts = Vec::new();
    for package in theirs {
        parts.push(Part::of(package)?);
    }
    parts.push(Part::standard_library()?);
    parts.sort_by(|a, b| (&a.name, &a.licence).cmp(&(&b.name, &b.licence)));
    written(&parts)
}

/// Name and version of everything that is compiled into a program, for one platform at least.
fn shipped() -> Result<BTreeSet<(String, String)>> {
    let mut all = BTreeSet::new();
    for platform in Platform::ALL {
        let mut tree = step::cargo(&["tree", "--locked", "--quiet", "--prefix", "none", "--format", "{p}"]);
        tree.args(["--edges", "normal,no-proc-macro", "--target", portable::triple(platform)]);
        tree.args(SHIPPED.iter().flat_map(|name| ["--package", name]));
        let output = tree.output().context("cannot run cargo tree")?;
        let why = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cargo tree does not say what is shipped: {}", why.trim());
        let lines = String::from_utf8(output.stdout).context("cargo tree answered no text")?;
        all.extend(lines.lines().filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
        }));
    }
    Ok(all)
}

/// Something of others that is in the programs.
struct Part {
    name: String,
    licence: String,
    authors: Vec<String>,
    texts: Vec<String>,
}

impl Part {
    fn of(package: &Package) -> Result<Self> {
        let licence = match (&package.license, &package.license_file) {
            (Some(expression), _) => expression.clone(),
            (None, Some(file)) => format!("see {file}"),
            (None, None) => String::new(),
        };
        let folder = package.manifest_path.as_std_path().parent().context("a package lies nowhere")?;
        let name = format!("{} {}", package.name, package.version);
        let mut part = Self { name, licence, authors: package.authors.clone(), texts: texts(folder)? };
        if part.texts.is_empty() {
            part.texts = standard(&part.licence).with_context(|| format!("the licence of {}", part.name))?;
        }
        Ok(part)
    }

    /// No package of its own, and in every program.
    fn standard_library() -> Result<Self> {
        let licence = "MIT OR Apache-2.0".to_owned();
        let texts = standard(&licence)?;
        Ok(Self { name: "the Rust standard library".to_owned(), licence, authors: Vec::new(), texts })
    }
}

/// The licences' texts that lie in a package's folder.
fn texts(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && NAMES.iter().any(|begin| name.starts_with(begin)) {
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            found.insert(name, tidy(&String::from_utf8_lossy(&bytes)));
        }
    }
    Ok(found.into_values().filter(|text| !text.is_empty()).collect())
}

/// The standard texts of all licences that an SPDX expression names.
fn standard(expression: &str) -> Result<Vec<String>> {
    let parsed = spdx::Expression::parse_mode(expression, spdx::ParseMode::LAX)
        .with_context(|| format!("`{expression}` names no licences"))?;
    let mut texts = Vec::new();
    for requirement in parsed.requirements() {
        let id = requirement.req.license.id();
        let id = id.with_context(|| format!("there is no standard text for `{}`", requirement.req))?;
        texts.push(tidy(id.text()));
        if let Some(addition) = &requirement.req.addition {
            let id = addition.id().with_context(|| format!("there is no standard text for `{addition}`"))?;
            texts.push(tidy(id.text()));
        }
    }
    Ok(texts)
}

/// Without what editors leave at the ends of lines and of files, so that the same text counts once.
fn tidy(text: &str) -> String {
    let lines: Vec<_> = text.trim_start_matches('\u{feff}').lines().map(str::trim_end).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

fn written(parts: &[Part]) -> Result<String> {
    // Each text once, numbered in the order in which it is first needed.
    let mut numbers = BTreeMap::new();
    let mut order = Vec::new();
    for text in parts.iter().flat_map(|part| &part.texts) {
        numbers.entry(text).or_insert_with(|| {
            order.push(text);
            order.len()
        });
    }
    let mut out = String::from(
        "The programs of this release hold work of others under the licences below.\n\
         Behind each name stand its licence and the numbers of its texts.\n\n",
    );
    for part in parts {
        let texts: Vec<_> =
            part.texts.iter().filter_map(|text| numbers.get(text)).map(|n| format!("[{n}]")).collect();
        writeln!(out, "{}: {} {}", part.name, part.licence, texts.join(" "))?;
        if !part.authors.is_empty() {
            writeln!(out, "    by {}", part.authors.join(", "))?;
        }
    }
    for (number, text) in (1..).zip(order) {
        writeln!(out, "\n{}\n[{number}]\n\n{text}", "-".repeat(80))?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dependency_that_is_shipped_has_a_licence_with_its_text() {
        let text = text().unwrap_or_else(|error| panic!("{error:#}"));
        let (index, texts) = text.split_once(&"-".repeat(80)).unwrap();
        for name in ["tokio ", "aws-lc-sys ", "the Rust standard library"] {
            assert!(
                index.lines().any(|line| line.starts_with(name) && line.contains('[')),
                "{name}: {index}"
            );
        }
        for words in ["Apache License", "Permission is hereby granted, free of charge", "ISC"] {
            assert!(texts.contains(words), "{words}");
        }
        // Neither ours nor what only tests use.
        for name in ["aio-", "proptest ", "minisign "] {
            assert!(!index.lines().any(|line| line.starts_with(name)), "{name}: {index}");
        }
    }

    #[test]
    fn a_licence_that_no_text_is_known_of_is_no_release() {
        assert!(standard("").is_err());
        assert!(standard("LicenseRef-Own").is_err());
        assert_eq!(standard("MIT OR Apache-2.0 WITH LLVM-exception").unwrap().len(), 3);
    }
}
