//! Identifiers as parsed types: who holds one holds a valid one. Does not decide how they are made.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// A text that is no identifier of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct InvalidId {
    text: String,
    expected: &'static str,
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident($inner:ty), $expected:literal, $pattern:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, pattern = $pattern))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name($inner);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                self.0.as_ref()
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let valid: fn(&str) -> bool = $valid;
                let invalid = || InvalidId { text: text.to_owned(), expected: $expected };
                valid(text).then(|| Self(text.into())).ok_or_else(invalid)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

identifier!(
    /// A node, as AIWM's database names it: 24 lowercase hex digits.
    NodeId(Digits),
    "a node id (24 lowercase hex digits)",
    "^[0-9a-f]{24}$",
    |text| text.len() == 24 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
);

identifier!(
    /// An organisation or a user, as the identity provider names it: an id, an e-mail address, an
    /// address, `auth0|…`. No longer than OpenID Connect lets a subject be, and nothing that a
    /// shell, a log line or a page reads as more than text.
    OwnerId(Arc<str>),
    "an organisation or user id (1 to 255 letters, digits or any of `._@|+:/=~-`)",
    "^[A-Za-z0-9._@|+:/=~-]{1,255}$",
    |text| matches!(text.len(), 1..=255)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@|+:/=~-".contains(&b))
);

/// 24 characters of ASCII without an allocation: whoever has thousands of nodes keeps each one's id many
/// times.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Digits([u8; 24]);

impl From<&str> for Digits {
    fn from(text: &str) -> Self {
        let mut digits = [b'0'; 24];
        digits.iter_mut().zip(text.bytes()).for_each(|(digit, byte)| *digit = byte);
        Self(digits)
    }
}

impl AsRef<str> for Digits {
    fn as_ref(&self) -> &str {
        // It was made of valid text.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl NodeId {
    /// The id made of these 12 bytes, as hex.
    pub fn from_bytes(bytes: [u8; 12]) -> Self {
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(text.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_is_24_lowercase_hex_digits() {
        assert!("69396100cd71623c7bbfbfee".parse::<NodeId>().is_ok());
        for text in [
            "",
            "69396100cd71623c7bbfbfe",
            "69396100CD71623C7BBFBFEE",
            "../../../../etc/passwd..",
            "zz396100cd71623c7bbfbfee",
        ] {
            assert!(text.parse::<NodeId>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_owner_is_named_as_identity_providers_name_users() {
        for text in [
            "someone",
            "auth0|5f7c8ec7c33c6c004bbafe82",
            "google-oauth2|1039",
            "first.last+gpu@example.com",
            "https://idp.example/users/7",
            "AItOawmwtWwcT0k51BayewNvutrJUqsvl6qs7A4=",
        ] {
            assert_eq!(text.parse::<OwnerId>().map(String::from).as_deref(), Ok(text));
        }
        for text in ["", " ", "a b", "a\nb", "<b>", "a\"b", "$(id)", "a;b", "\u{202e}", "é", &"x".repeat(256)]
        {
            assert!(text.parse::<OwnerId>().is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_become_hex() {
        let id = NodeId::from_bytes([0, 1, 2, 0xab, 0xff, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(id.as_str(), "000102abff05060708090a0b");
        assert_eq!(id.as_str().parse::<NodeId>(), Ok(id));
    }
}
