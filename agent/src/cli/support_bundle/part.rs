//! What a bundle is made of: named texts, each with what it is, or with why it is not there.

use std::{future::Future, time::Duration};

use tokio::time::timeout;

/// What was found, or why nothing was.
pub(super) type Found = Result<Content, String>;

/// A text, and what is to be known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) text: String,
    pub(super) note: Option<String>,
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self { text, note: None }
    }
}

/// A file of the bundle.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) file: String,
    pub(super) about: &'static str,
    pub(super) found: Found,
}

impl Part {
    pub(super) fn new(file: impl Into<String>, about: &'static str, found: Found) -> Self {
        Self { file: file.into(), about, found }
    }
}

/// The answer, or that none came in time.
pub(super) async fn within(patience: Duration, question: impl Future<Output = Found>) -> Found {
    let late = || Err(format!("no answer within {} s", patience.as_secs()));
    timeout(patience, question).await.unwrap_or_else(|_| late())
}

/// The answer to a question that may block.
pub(super) async fn aside<T: Send + 'static>(
    question: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(question).await.map_err(|_| "reading it crashed".to_owned())
}

/// A value as people read it, too.
pub(super) fn pretty(value: &impl serde::Serialize) -> Found {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    Ok(Content::from(text + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_question_without_an_answer_costs_its_patience_and_says_so() {
        let found = within(Duration::ZERO, std::future::pending()).await;
        assert_eq!(found, Err("no answer within 0 s".to_owned()));
    }
}
