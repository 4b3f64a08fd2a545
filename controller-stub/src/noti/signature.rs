//! Webhook signatures after the Standard Webhooks specification: `v1,` and the base64 of HMAC-SHA256 over
//! `{id}.{timestamp}.{body}`. Comparisons take as long for a near miss as for a far one. Pure.

use aio_protocol::time::Timestamp;
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

pub(crate) const ID_HEADER: &str = "webhook-id";
pub(crate) const TIMESTAMP_HEADER: &str = "webhook-timestamp";
pub(crate) const SIGNATURE_HEADER: &str = "webhook-signature";

/// What a secret begins with; the rest is base64.
pub(crate) const SECRET_PREFIX: &str = "whsec_";

/// A signature this much older or newer than now may be a replay.
const TOLERANCE_SECS: i64 = 300;

/// The longest id that is kept.
const MAX_ID_BYTES: usize = 128;

/// The keys of a webhook's signatures: one, or two while one takes the other's place.
#[derive(Clone)]
pub(crate) struct WebhookKeys(Vec<Hmac<Sha256>>);

/// The most keys that are in use at a time.
const MAX_KEYS: usize = 2;

/// A text that is no webhook secret.
#[derive(Debug, thiserror::Error)]
#[error(
    "a webhook secret is `whsec_` and the base64 of at least 16 bytes; two may be given, with a blank between them"
)]
pub struct InvalidSecret;

/// What the sender says of itself, as the headers have it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Headers<'a> {
    pub id: Option<&'a str>,
    pub timestamp: Option<&'a str>,
    /// One or more, with spaces between them: a sender that changes its key signs with both.
    pub signature: Option<&'a str>,
}

/// Why a message is not known to be the sender's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unverified {
    #[error("the header {0} is missing")]
    Missing(&'static str),
    #[error("the header {0} cannot be read")]
    Unreadable(&'static str),
    #[error("the signature is more than 300 s from this machine's clock")]
    Stale,
    #[error("the signature is not of this body by the shared secret")]
    Wrong,
}

impl WebhookKeys {
    /// Reads one secret, or two with white space or a comma between them.
    pub(crate) fn new(secrets: &SecretString) -> Result<Self, InvalidSecret> {
        let secrets = secrets.expose_secret().split([' ', '\t', '\n', '\r', ',']).filter(|it| !it.is_empty());
        let keys = secrets.map(key).collect::<Result<Vec<_>, _>>()?;
        if (1..=MAX_KEYS).contains(&keys.len()) { Ok(Self(keys)) } else { Err(InvalidSecret) }
    }

    /// The signature header of a message: a signature by each key.
    pub(crate) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signature = |key: &Hmac<Sha256>| {
            format!("v1,{}", STANDARD.encode(mac(key, id, timestamp, body).finalize().into_bytes()))
        };
        self.0.iter().map(signature).collect::<Vec<_>>().join(" ")
    }

    /// The id of a message that was signed with one of these keys lately.
    pub(crate) fn verify<'a>(
        &self,
        headers: Headers<'a>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<&'a str, Unverified> {
        let id = headers.id.ok_or(Unverified::Missing(ID_HEADER))?;
        let timestamp = headers.timestamp.ok_or(Unverified::Missing(TIMESTAMP_HEADER))?;
        let signatures = headers.signature.ok_or(Unverified::Missing(SIGNATURE_HEADER))?;
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return Err(Unverified::Unreadable(ID_HEADER));
        }
        let timestamp: i64 = timestamp.parse().map_err(|_| Unverified::Unreadable(TIMESTAMP_HEADER))?;
        if (now.as_millis() / 1000).saturating_sub(timestamp).saturating_abs() > TOLERANCE_SECS {
            return Err(Unverified::Stale);
        }
        let codes: Vec<_> = self.0.iter().map(|key| mac(key, id, timestamp, body)).collect();
        let genuine = signatures
            .split(' ')
            .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
            .any(|signature| codes.iter().any(|code| code.clone().verify_slice(&signature).is_ok()));
        if genuine { Ok(id) } else { Err(Unverified::Wrong) }
    }
}

fn key(secret: &str) -> Result<Hmac<Sha256>, InvalidSecret> {
    let key = STANDARD.decode(secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret));
    let key = key.ok().filter(|key| key.len() >= 16).ok_or(InvalidSecret)?;
    Hmac::new_from_slice(&key).map_err(|_| InvalidSecret)
}

fn mac(key: &Hmac<Sha256>, id: &str, timestamp: i64, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = key.clone();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    mac
}

/// Whether two secrets are the same, in a time that does not tell how much of them is: what is
/// compared is a code of each.
pub(crate) fn same(ours: &str, theirs: &str) -> bool {
    let code = |secret: &str| {
        Hmac::<Sha256>::new_from_slice(ours.as_bytes()).map(|mac| mac.chain_update(secret.as_bytes()))
    };
    match (code(ours), code(theirs)) {
        (Ok(ours), Ok(theirs)) => ours.verify_slice(&theirs.finalize().into_bytes()).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SENT: i64 = 1_614_265_330;

    /// The example of the specification's own libraries.
    fn key() -> WebhookKeys {
        WebhookKeys::new(&SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap()
    }

    fn headers(signature: &str) -> Headers<'_> {
        Headers {
            id: Some("msg_p5jXN8AQM9LWM0D4loKWxJek"),
            timestamp: Some("1614265330"),
            signature: Some(signature),
        }
    }

    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(secs * 1000)
    }

    #[test]
    fn the_specifications_example_is_signed_and_verified() {
        assert_eq!(key().sign("msg_p5jXN8AQM9LWM0D4loKWxJek", SENT, BODY), SIGNATURE);
        assert_eq!(key().verify(headers(SIGNATURE), BODY, at(SENT)), Ok("msg_p5jXN8AQM9LWM0D4loKWxJek"));
        let several = format!("v1a,xyz v1,AAAA {SIGNATURE}");
        assert!(key().verify(headers(&several), BODY, at(SENT)).is_ok());
    }

    #[test]
    fn while_one_secret_takes_another_s_place_either_verifies_and_both_sign() {
        let secrets = |text: &str| WebhookKeys::new(&SecretString::from(text)).unwrap();
        let (old, new) =
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_YW5vdGhlciBzZWNyZXQgb2YgMjQgYnl0ZXM=");
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        for both in [format!("{new} {old}"), format!("{new},{old}"), format!("{new}\n{old}\n")] {
            let both = secrets(&both);
            let signed = both.sign(id, SENT, BODY);
            assert!(signed.split(' ').count() == 2 && signed.ends_with(SIGNATURE), "{signed}");
            for known in [&secrets(old), &secrets(new), &both] {
                assert_eq!(known.verify(headers(&signed), BODY, at(SENT)), Ok(id));
                assert_eq!(both.verify(headers(&known.sign(id, SENT, BODY)), BODY, at(SENT)), Ok(id));
            }
        }
    }

    #[test]
    fn what_is_altered_missing_or_old_is_refused() {
        let verify = |headers, body: &[u8], now| key().verify(headers, body, now).unwrap_err();
        assert_eq!(verify(headers(SIGNATURE), b"{}", at(SENT)), Unverified::Wrong);
        assert_eq!(verify(headers("v1,"), BODY, at(SENT)), Unverified::Wrong);
        assert_eq!(verify(headers(&SIGNATURE[3..]), BODY, at(SENT)), Unverified::Wrong);
        for id in ["msg_other", "msg_p5jXN8AQM9LWM0D4loKWxJek.1"] {
            let other = Headers { id: Some(id), ..headers(SIGNATURE) };
            assert_eq!(verify(other, BODY, at(SENT)), Unverified::Wrong, "{id}");
        }
        assert_eq!(verify(headers(SIGNATURE), BODY, at(SENT + 301)), Unverified::Stale);
        assert_eq!(verify(headers(SIGNATURE), BODY, at(SENT - 301)), Unverified::Stale);
        assert!(key().verify(headers(SIGNATURE), BODY, at(SENT + 300)).is_ok());
        assert_eq!(
            verify(Headers { id: None, ..headers(SIGNATURE) }, BODY, at(SENT)),
            Unverified::Missing(ID_HEADER)
        );
        let unreadable = Headers { timestamp: Some("yesterday"), ..headers(SIGNATURE) };
        assert_eq!(verify(unreadable, BODY, at(SENT)), Unverified::Unreadable(TIMESTAMP_HEADER));
    }

    #[test]
    fn secrets_are_compared_as_a_whole() {
        assert!(same("abcdef", "abcdef"));
        for other in ["", "abcde", "abcdefg", "abcdeF", "abcdef\0"] {
            assert!(!same("abcdef", other), "{other:?}");
        }
    }

    #[test]
    fn a_secret_is_base64_of_enough_bytes() {
        let good = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let (two, three) = (format!("{good} whsec_c2hvcnQ="), format!("{good} {good} {good}"));
        for text in ["", " ", "whsec_", "whsec_c2hvcnQ=", "not base64 at all, sorry", &two, &three] {
            assert!(WebhookKeys::new(&SecretString::from(text)).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_headers_panic_or_pass(id in ".{0,200}", timestamp in ".{0,20}", signature in ".{0,100}", body: Vec<u8>) {
            let headers = Headers { id: Some(&id), timestamp: Some(&timestamp), signature: Some(&signature) };
            prop_assert!(key().verify(headers, &body, at(SENT)).is_err());
        }
    }
}
