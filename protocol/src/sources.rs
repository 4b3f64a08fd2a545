//! An error with all that it came from, in one sentence: what people and reports are told.

use std::error::Error;

/// `error` and its sources, the outermost first. A source that says nothing new is left out.
pub fn with_sources(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = inner.source();
    }
    text
}

/// The innermost source of `error`, which says why, where the outer ones say only that.
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(inner) = deepest.source() {
        deepest = inner;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Outer(&'static str, #[source] std::io::Error);

    #[test]
    fn each_source_is_told_once() {
        let disk = || std::io::Error::other("the disk is full");
        assert_eq!(with_sources(&Outer("cannot write", disk())), "cannot write: the disk is full");
        assert_eq!(
            with_sources(&Outer("cannot write: the disk is full", disk())),
            "cannot write: the disk is full"
        );
        assert_eq!(innermost(&Outer("cannot write", disk())), "the disk is full");
        assert_eq!(with_sources(&disk()), "the disk is full");
    }
}
