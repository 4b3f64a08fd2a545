//! Push of the fleet's figures by OTLP over HTTP: what is configured of it, checked.

use std::time::Duration;

use reqwest::{
    Url,
    header::{HeaderName, HeaderValue},
};
use secrecy::SecretString;

use super::{ConfigError, Settings, duration, listed, value_error, web_url};

/// Limits of the time between two pushes.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));

/// A receiver of figures.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// Where figures are posted.
    pub url: Url,
    /// What every post says beside: keys, tenants.
    pub headers: Vec<(String, SecretString)>,
    /// The time between two pushes.
    pub interval: Duration,
}

impl Otlp {
    /// The receiver below `endpoint`, with the built-in values.
    pub fn new(endpoint: &Url) -> Self {
        let mut url = endpoint.clone();
        url.set_path(&format!("{}/v1/metrics", endpoint.path().trim_end_matches('/')));
        Self { url, headers: Vec::new(), interval: Duration::from_secs(60) }
    }

    /// The receiver that was configured, if one was.
    pub(super) fn check(settings: &mut Settings) -> Result<Option<Self>, ConfigError> {
        const ENDPOINT: &str = "OTLP_ENDPOINT";
        let (headers, interval) = (settings.otlp_headers.take(), settings.otlp_interval.take());
        let Some(endpoint) = settings.otlp_endpoint.take() else {
            let needless = headers.map(|_| "OTLP_HEADERS").or(interval.map(|_| "OTLP_INTERVAL"));
            let missing = |name| value_error(ENDPOINT, format!("is missing: {name} is set"));
            return needless.map_or(Ok(None), |name| Err(missing(name)));
        };
        let mut otlp = Self::new(&web_url(ENDPOINT, endpoint.trim())?);
        otlp.headers = listed(&headers.unwrap_or_default()).map(header).collect::<Result<_, _>>()?;
        if let Some(interval) = interval {
            otlp.interval = duration("OTLP_INTERVAL", &interval, INTERVALS)?;
        }
        Ok(Some(otlp))
    }
}

/// `NAME=VALUE`. What is wrong with a value is said without it.
fn header(entry: &str) -> Result<(String, SecretString), ConfigError> {
    let wrong = || value_error("OTLP_HEADERS", "takes NAME=VALUE with commas between, as HTTP has headers");
    let (name, value) = entry.split_once('=').ok_or_else(wrong)?;
    let (name, value) = (name.trim(), value.trim());
    let good = name.parse::<HeaderName>().is_ok() && value.parse::<HeaderValue>().is_ok();
    if good { Ok((name.to_owned(), value.into())) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn checked(endpoint: &str, headers: &str) -> Result<Option<Otlp>, ConfigError> {
        let (otlp_endpoint, otlp_headers) = (Some(endpoint.into()), Some(headers.into()));
        Otlp::check(&mut Settings { otlp_endpoint, otlp_headers, ..Settings::default() })
    }

    #[test]
    fn figures_go_below_the_endpoint_with_what_headers_say() {
        for (endpoint, url) in [
            ("https://otel.example", "https://otel.example/v1/metrics"),
            ("https://otel.example:4318/", "https://otel.example:4318/v1/metrics"),
            ("https://otel.example/otlp/", "https://otel.example/otlp/v1/metrics"),
        ] {
            let otlp = checked(endpoint, "authorization=Basic eA==, X-Scope-OrgID=7").unwrap().unwrap();
            assert_eq!((otlp.url.as_str(), otlp.headers.len()), (url, 2));
            assert_eq!(otlp.headers[0].1.expose_secret(), "Basic eA==");
        }
        for (endpoint, headers) in
            [("otel.example", ""), ("https://x/?a=b", ""), ("https://x", "key"), ("https://x", "a b=secret")]
        {
            let refused = checked(endpoint, headers).unwrap_err().to_string();
            assert!(!refused.contains("secret"), "{refused}");
        }
        assert!(Otlp::check(&mut Settings::default()).unwrap().is_none());
        let mut alone = Settings { otlp_interval: Some("10s".into()), ..Settings::default() };
        let refused = Otlp::check(&mut alone).unwrap_err().to_string();
        assert!(refused.contains("OTLP_ENDPOINT is missing: OTLP_INTERVAL is set"), "{refused}");
    }
}
