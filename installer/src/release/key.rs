//! Which key a release must be signed with, if any. Where several are known, the word of whoever is
//! nearest to the machine counts: the operator's, then the token's, then the one that this program
//! was built with. Verifies nothing itself; `verify` does.

use std::fs;

use aio_protocol::error_code::ErrorCode;
use minisign_verify::PublicKey;

use crate::failure::Failure;

/// The base64 of the key that a fleet's owner has built in, by this variable of the build's
/// environment.
const BUILT_IN: Option<&str> = option_env!("AIO_BUILT_IN_RELEASE_KEY");

/// The key that is demanded: `given` by the operator, else the `token`'s, else the one that is
/// built in; none where nobody names one.
pub(crate) fn demanded(given: Option<&str>, token: Option<&str>) -> Result<Option<PublicKey>, Failure> {
    // A build that sets the variable to nothing builds in nothing.
    let built_in = BUILT_IN.filter(|key| !key.is_empty());
    first([(given, "that was given"), (token, "in the token"), (built_in, "that is built in")])
}

/// The keys that a node which updates itself believes from now on, in base64: the one that is
/// demanded, without which nothing can be believed.
pub(crate) fn of_updates(given: Option<&str>, token: Option<&str>) -> Result<Vec<String>, Failure> {
    let named = given.or(token).or(BUILT_IN.filter(|key| !key.is_empty()));
    let Some(named) = named else {
        let message = "--auto-update needs a release key, and neither --release-key, the token nor this program names one";
        return Err(Failure::new(ErrorCode::SignatureMissing, message));
    };
    let line = named.lines().map(str::trim).rfind(|line| !line.is_empty());
    let key = line.filter(|line| PublicKey::from_base64(line).is_ok());
    key.map(|key| vec![key.to_owned()]).ok_or_else(|| unreadable("the release key"))
}

fn first(candidates: [(Option<&str>, &str); 3]) -> Result<Option<PublicKey>, Failure> {
    let named = candidates.into_iter().find_map(|(text, whose)| Some((text?, whose)));
    named
        .map(|(text, whose)| parse(text).ok_or_else(|| unreadable(&format!("the release key {whose}"))))
        .transpose()
}

/// The text of a key that an operator names: the key itself, or a file that holds it.
pub(crate) fn read(named: &str) -> Result<String, Failure> {
    if parse(named).is_some() {
        return Ok(named.to_owned());
    }
    match fs::read_to_string(named) {
        Ok(text) if parse(&text).is_some() => Ok(text),
        Ok(_) => Err(unreadable(&format!("what is in {named}"))),
        Err(error) => Err(unreadable(&format!("`{named}` is no file that can be read ({error}), and"))),
    }
}

fn unreadable(what: &str) -> Failure {
    Failure::new(ErrorCode::ReleaseKeyInvalid, format!("{what} is no minisign public key"))
}

/// One line of base64, or a `.pub` file: that line under a comment.
fn parse(text: &str) -> Option<PublicKey> {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    PublicKey::from_base64(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> String {
        minisign::KeyPair::generate_unencrypted_keypair().unwrap().pk.to_base64()
    }

    #[test]
    fn the_nearest_word_on_the_key_counts() {
        let (operator, token, built_in) = (key(), key(), key());
        let chosen = |names: [Option<&str>; 3]| {
            first([(names[0], "a"), (names[1], "b"), (names[2], "c")]).map_err(|failure| failure.code)
        };
        let is = |text: &str| Ok(Some(PublicKey::from_base64(text).unwrap()));
        assert_eq!(chosen([Some(&operator), Some(&token), Some(&built_in)]), is(&operator));
        assert_eq!(chosen([None, Some(&token), Some(&built_in)]), is(&token));
        assert_eq!(chosen([None, None, Some(&built_in)]), is(&built_in));
        assert_eq!(chosen([None, None, None]), Ok(None));
        // A key that cannot be read is no reason to do without, or to take another's word.
        assert_eq!(chosen([None, Some("no key"), Some(&built_in)]), Err(ErrorCode::ReleaseKeyInvalid));
    }

    #[test]
    fn a_key_is_given_as_itself_or_as_the_file_that_minisign_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("minisign.pub");
        let key = key();
        fs::write(&file, format!("untrusted comment: minisign public key\n{key}\n")).unwrap();
        let name = file.to_str().unwrap();
        assert_eq!(read(&key).unwrap(), key);
        assert_eq!(parse(&read(name).unwrap()), parse(&key));
        fs::write(&file, "no key\n").unwrap();
        for named in [name, "/no/such/file", ""] {
            assert_eq!(read(named).unwrap_err().code, ErrorCode::ReleaseKeyInvalid, "{named}");
        }
    }
}
