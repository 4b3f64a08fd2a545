//! Signs requests for the objects of a bucket, as AWS Signature Version 4 has it: GET alone,
//! without a query. Pure; the crate `self_update` signs too, but only requests for its own layout.

use aio_protocol::time::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// An access key, as its file has it: the id, the secret, and the session's token if any, each on a line.
#[derive(Debug, Clone)]
pub(super) struct AccessKey {
    pub(super) id: String,
    pub(super) secret: SecretString,
    pub(super) session: Option<SecretString>,
}

/// The SHA-256 of no body.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

impl AccessKey {
    /// Of the text of its file.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let (id, secret) = (lines.next()?.to_owned(), SecretString::from(lines.next()?));
        Some(Self { id, secret, session: lines.next().map(SecretString::from) })
    }

    /// The headers to send with `GET url`.
    pub(super) fn headers(&self, url: &Url, region: &str, now: Timestamp) -> Vec<(&'static str, String)> {
        let time = basic(now);
        let date = time.get(..8).unwrap_or_default().to_owned();
        let host = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
            None => url.host_str().unwrap_or_default().to_owned(),
        };
        let mut signed =
            vec![("host", host), ("x-amz-content-sha256", EMPTY.to_owned()), ("x-amz-date", time.clone())];
        if let Some(session) = &self.session {
            signed.push(("x-amz-security-token", session.expose_secret().to_owned()));
        }
        let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let request = format!("GET\n{}\n\n{lines}\n{names}\n{EMPTY}", url.path());
        let scope = format!("{date}/{region}/s3/aws4_request");
        let digest = hex::encode(Sha256::digest(request.as_bytes()));
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}");
        let first = format!("AWS4{}", self.secret.expose_secret()).into_bytes();
        let parts = [date.as_str(), region, "s3", "aws4_request", &to_sign];
        let signature = hex::encode(parts.into_iter().fold(first, |key, text| mac(&key, text)));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.id
        );
        signed.retain(|(name, _)| *name != "host");
        signed.push(("authorization", authorization));
        signed
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    // A key of any length will do.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// `20130524T000000Z`.
fn basic(time: Timestamp) -> String {
    let seconds = time.to_string().chars().take(19).filter(|c| !matches!(c, '-' | ':')).collect::<String>();
    format!("{seconds}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of "Authenticating Requests: Using the Authorization Header" in the API's reference,
    /// without its range, which is not signed here.
    #[test]
    fn a_request_is_signed_as_the_reference_says() {
        let key =
            AccessKey::parse("AKIAIOSFODNN7EXAMPLE\nwJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n").unwrap();
        let url = Url::parse("https://examplebucket.s3.amazonaws.com/test.txt").unwrap();
        let headers = key.headers(&url, "us-east-1", "2013-05-24T00:00:00Z".parse().unwrap());
        assert_eq!(headers[1], ("x-amz-date", "20130524T000000Z".to_owned()));
        let (_, authorization) = headers.last().unwrap();
        let scope = "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";
        assert!(authorization.contains(scope), "{authorization}");
        // By another program, which gets the reference's own answer for the example as it stands there.
        assert!(authorization.ends_with(SIGNATURE), "{authorization}");
        assert!(AccessKey::parse("only an id\n").is_none());
    }

    const SIGNATURE: &str = "Signature=df548e2ce037944d03f3e68682813b093763996d597cf890ca3d9037fd231eb4";
}
