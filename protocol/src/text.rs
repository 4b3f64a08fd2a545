//! Text that a machine or a person wrote, as it may be stored and shown: one line, nothing
//! invisible, no longer than its place. Does not decide what a name or an identifier must look
//! like.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// The longest item of a list of words, in bytes.
const MAX_WORD_BYTES: usize = 64;

/// `text` on one line and at most `max_bytes` long. White space of any kind becomes one blank, none
/// at the ends. Control characters and characters that Unicode calls default ignorable are dropped:
/// nobody sees them, and they change how the rest is shown.
pub fn clean(text: &str, max_bytes: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max_bytes));
    let mut blank = false;
    for character in text.chars().filter(|character| !is_invisible(*character)) {
        if is_blank(character) {
            blank = !line.is_empty();
            continue;
        }
        if line.len() + usize::from(blank) + character.len_utf8() > max_bytes {
            break;
        }
        if std::mem::take(&mut blank) {
            line.push(' ');
        }
        line.push(character);
    }
    line
}

/// Whether [`clean`] leaves `text` as it is, apart from its length.
pub fn is_clean(text: &str) -> bool {
    clean(text, usize::MAX) == text
}

fn is_blank(character: char) -> bool {
    // The Hangul fillers and the empty Braille cell are shown as blanks, though Unicode calls them
    // letters and a symbol.
    character.is_whitespace()
        || matches!(character, '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}')
}

/// Control characters, Unicode's default ignorable code points, interlinear annotations and noncharacters.
fn is_invisible(character: char) -> bool {
    (character.is_control() && !character.is_whitespace())
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{fdd0}'..='\u{fdef}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
        || u32::from(character) & 0xfffe == 0xfffe
}

/// A value with text in it that can be cleaned.
pub(crate) trait Clean {
    /// The value with its text cleaned, each at most `max_bytes` long.
    fn cleaned(self, max_bytes: usize) -> Self;
}

impl Clean for String {
    fn cleaned(self, max_bytes: usize) -> Self {
        if self.len() <= max_bytes && self.bytes().all(|byte| byte.is_ascii_graphic()) {
            return self;
        }
        clean(&self, max_bytes)
    }
}

impl<T: Clean> Clean for Option<T> {
    fn cleaned(self, max_bytes: usize) -> Self {
        self.map(|value| value.cleaned(max_bytes))
    }
}

impl<T: Clean> Clean for Vec<T> {
    fn cleaned(self, max_bytes: usize) -> Self {
        self.into_iter().map(|value| value.cleaned(max_bytes)).collect()
    }
}

impl Clean for Value {
    fn cleaned(self, max_bytes: usize) -> Self {
        match self {
            Self::String(text) => Self::String(text.cleaned(max_bytes)),
            Self::Array(values) => Self::Array(values.cleaned(max_bytes)),
            Self::Object(values) => Self::Object(
                values
                    .into_iter()
                    .map(|(key, value)| (key.cleaned(max_bytes), value.cleaned(max_bytes)))
                    .collect(),
            ),
            other => other,
        }
    }
}

/// Reads text of at most `MAX_BYTES` bytes; what is longer is cut.
pub(crate) fn bounded<'de, D: Deserializer<'de>, T: Clean + Deserialize<'de>, const MAX_BYTES: usize>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(T::deserialize(deserializer)?.cleaned(MAX_BYTES))
}

/// Reads the first `MAX_ITEMS` items of a list. An item that cannot be read is left out, and
/// anything but a list reads as an empty one.
pub(crate) fn list<'de, D: Deserializer<'de>, T: DeserializeOwned, const MAX_ITEMS: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let Value::Array(items) = Value::deserialize(deserializer)? else { return Ok(Vec::new()) };
    Ok(items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).take(MAX_ITEMS).collect())
}

/// Reads text of at most `MAX_BYTES` bytes, or nothing of what is no text.
pub(crate) fn told<
    'de,
    D: Deserializer<'de>,
    T: Clean + Default + DeserializeOwned,
    const MAX_BYTES: usize,
>(
    deserializer: D,
) -> Result<T, D::Error> {
    let told = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value::<T>(told).unwrap_or_default().cleaned(MAX_BYTES))
}

/// Reads the first `MAX_ITEMS` words of a list, each of at most [`MAX_WORD_BYTES`].
pub(crate) fn words<'de, D: Deserializer<'de>, const MAX_ITEMS: usize>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    Ok(list::<D, String, MAX_ITEMS>(deserializer)?.cleaned(MAX_WORD_BYTES))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_one_line_of_what_can_be_seen() {
        for (text, cleaned) in [
            ("gpu-worker-01", "gpu-worker-01"),
            ("Gerät 7 — 机器", "Gerät 7 — 机器"),
            ("  a\t b\r\n\u{2028}c\u{a0}\u{3000} ", "a b c"),
            ("1.0.0\nroot", "1.0.0 root"),
            ("\u{1b}[31mred\u{1b}[0m\u{7}", "[31mred[0m"),
            ("a\0b\u{9b}c", "abc"),
            ("\u{202e}evil\u{202c}", "evil"),
            ("pay\u{200b}pal\u{feff}\u{2066}\u{ad}", "paypal"),
            ("\u{e0041}\u{e0042}x", "x"),
            ("\u{3164}\u{2800}", ""),
            ("a\u{200b} \u{200b}b", "a b"),
            ("a\u{ffff}\u{1fffe}b", "ab"),
        ] {
            assert_eq!(clean(text, 100), cleaned, "{text:?}");
            assert_eq!(is_clean(text), text == cleaned, "{text:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut_between_two_characters_and_never_at_a_blank() {
        assert_eq!(clean("hostname", 4), "host");
        assert_eq!(clean("ééé", 5), "éé");
        assert_eq!(clean("host name", 5), "host");
        assert_eq!(clean("host", 0), "");
    }

    proptest! {
        #[test]
        fn cleaning_is_done_once_and_keeps_the_bound(text in "(?s)\\PC{0,50}.{0,50}", max in 0_usize..120) {
            let cleaned = clean(&text, max);
            prop_assert!(cleaned.len() <= max && is_clean(&cleaned), "{cleaned:?}");
            prop_assert_eq!(&clean(&cleaned, max), &cleaned);
            prop_assert_eq!(text.cleaned(max), cleaned);
        }
    }
}
