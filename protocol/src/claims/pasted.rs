//! A token as people paste it: with quotes, a variable's name, a header's, a byte order mark, or
//! wrapped by a terminal. Takes away what cannot be a part of any token; what is left may still be
//! none.

/// What stands before a token that was copied with its surroundings. Letters count in either case.
const PREFIXES: [&str; 7] =
    ["export ", "aio_node_token=", "authorization:", "bearer ", "--token=", "--token ", "token="];

/// Quotes, in pairs.
const QUOTES: [(char, char); 7] =
    [('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”'), ('‘', '’'), ('«', '»'), ('<', '>')];

/// The token in `text`.
pub fn unwrapped(text: &str) -> String {
    let visible: String = text.chars().filter(|character| !is_invisible(*character)).collect();
    let mut token = visible.as_str();
    loop {
        let inner = without_one(token.trim());
        if inner.len() == token.len() {
            break;
        }
        token = inner;
    }
    // A line break inside was made by a terminal or a mail program, with the blanks that indent the
    // next line.
    token.lines().map(str::trim).collect()
}

/// Without one layer of what stands around a token.
fn without_one(text: &str) -> &str {
    let quoted = QUOTES.iter().find_map(|(open, close)| text.strip_prefix(*open)?.strip_suffix(*close));
    let prefixed = || {
        PREFIXES.iter().find_map(|prefix| {
            let (head, rest) = text.split_at_checked(prefix.len())?;
            head.eq_ignore_ascii_case(prefix).then_some(rest)
        })
    };
    quoted.or_else(prefixed).or_else(|| text.strip_suffix([',', ';'])).unwrap_or(text)
}

/// Zero-width characters and byte order marks.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{ad}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_around_a_token_goes() {
        for pasted in [
            "a.b-_.c",
            "  a.b-_.c\r\n",
            "\u{feff}a.b-_.c",
            "\"a.b-_.c\"",
            "'a.b-_.c'",
            "“a.b-_.c”",
            "`a.b-_.c`",
            "<a.b-_.c>",
            "Bearer a.b-_.c",
            "Authorization: Bearer a.b-_.c",
            "AIO_NODE_TOKEN=a.b-_.c",
            "export AIO_NODE_TOKEN=\"a.b-_.c\"\n",
            "--token 'a.b-_.c'",
            "\"a.b-_.c\",",
            "a.b\u{200b}-_.c",
            "a.b\n  -_.c",
            "a.\r\nb-_\r\n.c",
        ] {
            assert_eq!(unwrapped(pasted), "a.b-_.c", "{pasted:?}");
        }
        // What may be meant otherwise stays, to be named.
        for kept in ["a.b c", "a.b…", "\"a.b.c", "a.b.c=", "", "bearer.b.c", "token.b.c"] {
            assert_eq!(unwrapped(kept), kept, "{kept:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_a_token_stays_as_it_is(text in ".{0,200}", token in "[A-Za-z0-9_-]{1,30}(\\.[A-Za-z0-9_-]{1,30}){2}") {
            let _ = unwrapped(&text);
            proptest::prop_assert_eq!(unwrapped(&token), token);
        }
    }
}
