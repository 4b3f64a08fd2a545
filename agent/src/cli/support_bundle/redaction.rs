//! What must not leave a machine: tokens, passwords, and what looks like them. Every text of a
//! bundle, names and reasons included, passes through [`Redactor::redact`]. Pure. In doubt it takes
//! away too much: a word too few costs a question, a token too many costs a node.

use std::ops::Range;

use secrecy::{ExposeSecret, SecretString};

/// What stands in a secret's place.
const REDACTED: &str = "[redacted]";

/// What is shorter is no token, and taking it out everywhere would tear holes into everything.
const SHORTEST: usize = 12;

/// What the name of a secret ends with.
const SECRET_NAMES: [&str; 10] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "api_key",
    "access_key",
    "secret_key",
    "private_key",
];

/// Settings of a unit whose value is a secret as a whole, over all its lines.
const SECRET_SETTINGS: [&str; 2] = ["setcredential", "setcredentialencrypted"];

/// What stands before a secret without being its name.
const ANNOUNCEMENTS: [&str; 4] = ["bearer ", "authorization: basic ", "--token ", "--password "];

/// Knows this machine's secrets, and how others look.
#[derive(Debug, Default)]
pub(super) struct Redactor {
    known: Vec<SecretString>,
}

impl Redactor {
    /// Remembers a secret: each line of it, and of a token also the signature alone.
    pub(super) fn know(&mut self, secret: &str) {
        for line in secret.lines().map(str::trim) {
            let signature = line.rsplit_once('.').map(|(_, signature)| signature);
            let worth = [Some(line), signature].into_iter().flatten().filter(|text| text.len() >= SHORTEST);
            self.known.extend(worth.map(SecretString::from));
        }
        // One that is part of another must not break it up.
        self.known.sort_by_key(|secret| std::cmp::Reverse(secret.expose_secret().len()));
        self.known.dedup_by(|one, other| one.expose_secret() == other.expose_secret());
    }

    /// Remembers the tokens in `text`, whose signatures may stand elsewhere alone.
    pub(super) fn notice(&mut self, text: &str) {
        for token in tokens(text) {
            self.know(text.get(token).unwrap_or_default());
        }
    }

    /// Remembers what `text` assigns to names of secrets, so that it is found wherever else it stands.
    pub(super) fn learn(&mut self, text: &str) {
        for value in assigned(text) {
            self.know(text.get(value).unwrap_or_default());
        }
    }

    /// The text without secrets.
    pub(super) fn redact(&self, text: &str) -> String {
        let text = self
            .known
            .iter()
            .fold(text.to_owned(), |text, secret| text.replace(secret.expose_secret(), REDACTED));
        let text = without(&text, &tokens(&text));
        let text = without(&text, &logins(&text));
        let text = without(&text, &announced(&text));
        without(&text, &assigned(&text))
    }
}

/// `text` with these pieces of it replaced. They are in order and do not overlap.
fn without(text: &str, pieces: &[Range<usize>]) -> String {
    let mut left = String::with_capacity(text.len());
    let mut done = 0;
    for piece in pieces {
        left.push_str(text.get(done..piece.start).unwrap_or_default());
        left.push_str(REDACTED);
        done = piece.end;
    }
    left.push_str(text.get(done..).unwrap_or_default());
    left
}

/// JWTs: base64url parts joined by dots, of which the first begins an object.
fn tokens(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(offset) = text.get(from..).and_then(|rest| rest.find("eyJ")) {
        let start = from + offset;
        let mut parts = 0;
        let mut end = start;
        loop {
            let part = text.get(end..).unwrap_or_default();
            end += part.find(|c: char| !is_base64url(c)).unwrap_or(part.len());
            parts += 1;
            let next = text.get(end..).and_then(|rest| rest.strip_prefix('.'));
            if !next.is_some_and(|next| next.starts_with(is_base64url)) {
                break;
            }
            end += 1;
        }
        if parts >= 3 {
            found.push(start..end);
        }
        from = end;
    }
    found
}

fn is_base64url(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

/// The user and password of URLs.
fn logins(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(offset) = text.get(from..).and_then(|rest| rest.find("://")) {
        let start = from + offset + "://".len();
        let rest = text.get(start..).unwrap_or_default();
        let mut before = ' ';
        let is_end = |c: char| {
            let escaped = std::mem::replace(&mut before, c) == '\\';
            c.is_whitespace() || matches!(c, '/' | '?' | '#') || c == '"' && !escaped
        };
        let authority = rest.get(..rest.find(is_end).unwrap_or(rest.len())).unwrap_or_default();
        if let Some(length) = authority.rfind('@') {
            found.push(start..start + length);
        }
        from = start + authority.len();
    }
    found
}

/// The words behind what announces a secret.
fn announced(text: &str) -> Vec<Range<usize>> {
    // Of the same length, so that places in it are places in the text.
    let lower = text.to_ascii_lowercase();
    let mut found: Vec<Range<usize>> = ANNOUNCEMENTS
        .iter()
        .flat_map(|words| lower.match_indices(words))
        .map(|(at, words)| {
            let start = at + words.len();
            let rest = text.get(start..).unwrap_or_default();
            start..start + rest.find(|c: char| c.is_whitespace() || is_quote(c)).unwrap_or(rest.len())
        })
        .filter(|word| !word.is_empty())
        .collect();
    found.sort_by_key(|word| word.start);
    found.dedup_by(|later, earlier| later.start < earlier.end);
    found
}

/// What is assigned to names of secrets, quoted or not: `NAME=value`, `name = "value"`, `"name":
/// "value"`, and a unit's settings.
fn assigned(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, sign) in text.match_indices(['=', ':']) {
        if found.last().is_some_and(|last| at < last.end) {
            continue;
        }
        let Some((name, quote)) = name_before(text.get(..at).unwrap_or_default()) else { continue };
        let name = name.to_ascii_lowercase().replace('-', "_");
        let start = at + sign.len();
        let rest = text.get(start..).unwrap_or_default();
        if sign == "=" && SECRET_SETTINGS.contains(&name.as_str()) {
            found.push(start..start + setting(rest));
        } else if name.ends_with("proxy") {
            // `USER:PASSWORD@HOST`, without which it is a URL or has no login.
            let value = value(rest);
            let text = rest.get(value.clone()).unwrap_or_default();
            let login = text.rfind('@').filter(|_| sign == "=" && !text.contains("://"));
            found.extend(login.map(|length| start + value.start..start + value.start + length));
        } else if SECRET_NAMES.iter().any(|end| name.ends_with(end)) {
            let value = match (sign, quote) {
                // `"NAME=value"`: the quote before the name ends the value.
                ("=", Some(Place::Before(quote))) => Some(0..closing(rest, quote)),
                ("=", _) => Some(value(rest)),
                (_, Some(Place::Behind)) => Some(value(rest)).filter(|value| value.start > 0),
                _ => None,
            };
            found.extend(value.filter(|value| !value.is_empty()).map(|v| start + v.start..start + v.end));
        }
    }
    found
}

/// Where a quote stands beside a name.
enum Place {
    Before(char),
    Behind,
}

/// The name that `text` ends with, and the quote before or behind it.
fn name_before(text: &str) -> Option<(&str, Option<Place>)> {
    let text = text.trim_end_matches([' ', '\t']);
    let bare = text.strip_suffix(is_quote);
    let behind = bare.map(|_| Place::Behind);
    // JSON within JSON.
    let text = bare.map_or(text, |text| text.strip_suffix('\\').unwrap_or(text));
    let start = text.rfind(|c: char| !is_base64url(c) && c != '.').map_or(0, |last| {
        last + text.get(last..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8)
    });
    let (head, name) = text.split_at_checked(start)?;
    let before = head.chars().next_back().filter(|c| is_quote(*c)).map(Place::Before);
    (!name.is_empty()).then_some((name, behind.or(before)))
}

/// Where the value is that `text` begins with, without its quotes.
fn value(text: &str) -> Range<usize> {
    let blank = text.len() - text.trim_start_matches([' ', '\t']).len();
    let text = text.get(blank..).unwrap_or_default();
    for quotes in [r#"""""#, "'''", r#"\""#] {
        if let Some(rest) = text.strip_prefix(quotes) {
            let start = blank + quotes.len();
            return start..start + rest.find(quotes).unwrap_or(rest.len());
        }
    }
    match text.chars().next() {
        Some(quote) if is_quote(quote) => {
            let rest = text.get(1..).unwrap_or_default();
            blank + 1..blank + 1 + closing(rest, quote)
        }
        _ => blank..blank + word(text),
    }
}

/// Up to the end of a word, or of what is quoted in it as in `Some("value")`.
fn word(text: &str) -> usize {
    let end = text.find(|c: char| c.is_whitespace() || is_quote(c)).unwrap_or(text.len());
    let (before, behind) = text.split_at_checked(end).unwrap_or((text, ""));
    match behind.chars().next() {
        Some(quote) if is_quote(quote) && before.ends_with('(') => {
            end + 1 + closing(behind.get(1..).unwrap_or_default(), quote)
        }
        _ => end,
    }
}

/// Up to the quote that ends a value, or the line.
fn closing(text: &str, quote: char) -> usize {
    let mut escaped = false;
    let is_end = |c: char| {
        let end = c == '\n' || c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        end
    };
    text.find(is_end).unwrap_or(text.len())
}

/// Up to the end of a setting, whose lines may be continued.
fn setting(text: &str) -> usize {
    let mut before = ' ';
    text.find(|c: char| {
        c == '\n' && std::mem::replace(&mut before, c) != '\\' || {
            before = c;
            false
        }
    })
    .unwrap_or(text.len())
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'')
}

#[cfg(test)]
mod tests;
