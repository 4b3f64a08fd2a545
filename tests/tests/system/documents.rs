//! What is written for people and can be compared with the code.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use aio_protocol::error_code::ErrorCode;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text without its fenced code, where a `#` opens a comment and a bracket is none.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn headings(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim())
}

#[test]
fn troubleshooting_says_of_every_error_code_what_the_catalogue_says_and_knows_no_other() {
    let text = prose(&read(&root().join("docs/troubleshooting.md")));
    let is_code = |word: &&str| {
        word.contains(|c: char| c.is_ascii_uppercase())
            && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    };
    let documented: BTreeSet<_> =
        headings(&text).map(|heading| heading.trim_matches('`')).filter(is_code).collect();
    let known: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    let missing: Vec<_> = known.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&known).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "without a section: {missing:?}; unknown: {unknown:?}");
    for code in ErrorCode::ALL {
        let section =
            text.split("\n### ").find(|section| section.lines().next() == Some(code.as_str())).unwrap();
        let exit = format!("Exit status {}.", code.exit_status());
        for words in [code.meaning(), code.cure(), &exit] {
            assert!(section.contains(words), "the section of {code} does not say `{words}`");
        }
    }
}

/// The Rust files that hold tests: those in a folder of tests, and the parts of others from `mod tests` on.
fn test_code(folder: &Path, found: &mut String) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() && !entry.ends_with("target") {
            test_code(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = read(&entry);
            let of_tests =
                entry.components().any(|part| part.as_os_str() == "tests") || entry.ends_with("tests.rs");
            let start = if of_tests { Some(0) } else { text.find("#[cfg(test)]") };
            found.push_str(start.map_or("", |start| &text[start..]));
        }
    }
}

#[test]
fn no_error_code_is_left_that_no_test_provokes() {
    let mut tests = String::new();
    for folder in ["protocol", "host", "installer", "agent", "controller-stub", "tests"] {
        test_code(&root().join(folder), &mut tests);
    }
    // By the variant's name, as tests in Rust know it, or by the word that users see.
    let words: BTreeSet<_> = tests.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let provoked =
        |code: &&ErrorCode| words.contains(code.as_str()) || words.contains(format!("{code:?}").as_str());
    let left: Vec<_> = ErrorCode::ALL.iter().filter(|code| !provoked(code)).collect();
    assert!(left.is_empty(), "no test expects {left:?}");
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let documents: Vec<_> = [root(), root().join("docs")]
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    let mut links = 0;
    for document in &documents {
        let text = prose(&read(document));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (file, section) =
                link.split_once('#').map_or((link, None), |(file, section)| (file, Some(section)));
            let target =
                if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            assert!(target.exists(), "{} links to {link}, which is not there", document.display());
            if let Some(section) = section {
                let text = prose(&read(&target));
                let there = headings(&text).any(|heading| anchor(heading) == section);
                assert!(there, "{} links to {link}, and there is no such section", document.display());
            }
        }
    }
    assert!(links > 0, "the documents link to nothing");
}

/// As GitHub makes an anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}
