//! What the token says, and whether the controller that it names is there, is trusted, knows the node, and has the same time.

use std::time::{Duration, Instant, SystemTime};

use aio_host::tls::{self, Trust};
use aio_protocol::{error_code::ErrorCode, release::Platform, time::Timestamp};
use reqwest::{Client, Response, Url, header::DATE};
use secrecy::SecretString;
use tokio::{net::lookup_host, time::timeout};

use super::{Examination, Finding};
use crate::{controller::Controller, failure::Failure, http, install::trust_of, token::NodeToken};

/// Tokens are accepted this long before they begin and after they end.
const LEEWAY: Duration = Duration::from_secs(30);

/// What Kerberos allows as well: beyond it, no date in a log or a certificate can be trusted.
const MOST: Duration = Duration::from_secs(300);

/// For a name, and for the time.
const PATIENCE: Duration = Duration::from_secs(5);

const TOKEN: &str = "token";
const NAME: &str = "name";
const CONTROLLER: &str = "controller";
const NODE: &str = "node";
const CLOCK: &str = "clock";

/// Where variables name proxies, as they are read.
const PROXIES: [&str; 6] =
    ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];

/// Looks at the token that was given, or else at the one that is installed.
pub(super) async fn examine(examination: &Examination, installed: Option<SecretString>) -> Vec<Finding> {
    let Some(text) = examination.token.clone().or(installed) else {
        let reason = "there is no token; pass --token-file to look at it and at the controller";
        let skipped = |check| Finding::skipped(check, reason);
        return [TOKEN, NAME, CONTROLLER, NODE, CLOCK].map(skipped).into();
    };
    // An ended token still says which controller it is from.
    let now = Timestamp::from(SystemTime::now());
    let token = match NodeToken::parse(&text, Timestamp::from_millis(0)) {
        Ok(token) => token,
        Err(failure) => {
            let skipped = |check| Finding::skipped(check, "the token says nothing of a controller");
            let mut findings = vec![Finding::failed(TOKEN, failure.code, failure.message)];
            findings.extend([NAME, CONTROLLER, NODE, CLOCK].map(skipped));
            return findings;
        }
    };
    let mut findings = vec![Finding::of(TOKEN, NodeToken::parse(&text, now).map(|token| life(&token, now)))];
    match reach(examination, &token) {
        Ok((client, base)) => {
            findings.push(name(&base).await);
            findings.extend(ask(&client, &base, examination, &token).await);
        }
        Err(failure) => {
            let skipped = |check| Finding::skipped(check, "the controller's address cannot be used");
            findings.push(Finding::failed(CONTROLLER, failure.code, failure.message));
            findings.extend([NAME, NODE, CLOCK].map(skipped));
        }
    }
    findings
}

fn life(token: &NodeToken, now: Timestamp) -> String {
    let claims = token.claims();
    let days = claims.expires_at().since(now).as_secs() / 86_400;
    format!("of node {}, ends in {days} days, at {}", claims.sub, claims.expires_at())
}

fn reach(examination: &Examination, token: &NodeToken) -> Result<(Client, Url), Failure> {
    let insecure = examination.insecure_http;
    let base = http::parse(&token.claims().api, "the controller's address in the token", insecure)?;
    let trust: Trust = trust_of(token.claims(), examination.ca_file.clone(), &base, &examination.layout);
    Ok((http::client(&base, &trust, insecure, None)?, base))
}

async fn name(base: &Url) -> Finding {
    let (host, port) = (base.host_str().unwrap_or_default(), base.port_or_known_default().unwrap_or(443));
    if proxy(base).is_some() {
        return Finding::skipped(NAME, "a proxy looks for the controller's name");
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let failed = |why: String| {
        Finding::failed(NAME, ErrorCode::ControllerUnreachable, format!("{host} cannot be resolved: {why}"))
    };
    match timeout(PATIENCE, lookup_host((host, port))).await {
        Err(_) => failed(format!("no answer within {} s", PATIENCE.as_secs())),
        Ok(Err(error)) => failed(error.to_string()),
        Ok(Ok(found)) => {
            let mut addresses: Vec<_> = found.map(|address| address.ip().to_string()).collect();
            addresses.dedup();
            Finding::ok(NAME, format!("{host} is {}", addresses.join(", ")))
        }
    }
}

/// The variable that sends requests to `base` through a proxy, as far as variables say; exceptions (`NO_PROXY`) are the client's to know.
fn proxy(base: &Url) -> Option<&'static str> {
    let set = |name: &&&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    (!http::is_this_machine(base)).then(|| PROXIES.iter().find(set).copied()).flatten()
}

async fn ask(client: &Client, base: &Url, examination: &Examination, token: &NodeToken) -> Vec<Finding> {
    let address = format!("{}/healthz", base.as_str().trim_end_matches('/'));
    let through = proxy(base).map(|name| format!(", {name} is set")).unwrap_or_default();
    let asked = Instant::now();
    let answer = match client.get(&address).timeout(PATIENCE).send().await {
        Ok(answer) => answer,
        Err(error) => {
            let (code, words) = match tls::explain(&error) {
                Some(trouble) => (trouble.code, trouble.words),
                None => (ErrorCode::ControllerUnreachable, http::reason(error)),
            };
            let skipped = |check| Finding::skipped(check, "the controller was not reached");
            let failed = Finding::failed(CONTROLLER, code, format!("{base}: {words}{through}"));
            return vec![failed, skipped(NODE), skipped(CLOCK)];
        }
    };
    let took = asked.elapsed();
    let clock = clock(SystemTime::now().into(), their_time(&answer));
    let version = answer.json::<serde_json::Value>().await.ok();
    let version = version.and_then(|health| Some(format!(" (version {})", health.get("version")?.as_str()?)));
    let reached =
        format!("{base} answers within {} ms{}{through}", took.as_millis(), version.unwrap_or_default());
    let node = match Platform::of_architecture(std::env::consts::ARCH) {
        Some(platform) => Finding::of(NODE, plan(client, base, examination, token, platform).await),
        None => Finding::skipped(NODE, "there is no release for this processor"),
    };
    vec![Finding::ok(CONTROLLER, reached), node, clock]
}

async fn plan(
    client: &Client,
    base: &Url,
    examination: &Examination,
    token: &NodeToken,
    platform: Platform,
) -> Result<String, Failure> {
    let controller = Controller::new(client, base, token, token.bearer(&examination.layout))?;
    let plan = controller.plan(platform).await?;
    Ok(format!("{} ({}) is {}, and gets {}", plan.node_name, plan.node_id, plan.status, plan.version))
}

/// What time it is where the answer comes from, after its `Date`.
pub(crate) fn their_time(answer: &Response) -> Option<Timestamp> {
    parse_date(answer.headers().get(DATE)?.to_str().ok()?)
}

/// `Date`, as HTTP writes it.
fn parse_date(text: &str) -> Option<Timestamp> {
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Timestamp::from_millis(date.timestamp().as_millisecond()))
}

pub(super) fn clock(ours: Timestamp, theirs: Option<Timestamp>) -> Finding {
    let Some(theirs) = theirs else {
        return Finding::skipped(CLOCK, "the controller does not say what time it is");
    };
    let (ahead, behind) = (ours.since(theirs), theirs.since(ours));
    let (difference, side) = if ahead > behind { (ahead, "ahead of") } else { (behind, "behind") };
    if difference <= LEEWAY {
        return Finding::ok(CLOCK, "the same as the controller's, within the 30 s that tokens allow");
    }
    let seconds = difference.as_secs();
    let words = match (seconds / 86_400, seconds / 3600, seconds / 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {} min", minutes % 60),
        (days, hours, _) => format!("{days} days {} h", hours % 24),
    };
    let reason = format!("this machine's clock is {words} {side} the controller's");
    if difference > MOST {
        return Finding::failed(CLOCK, ErrorCode::ClockSkewed, reason);
    }
    Finding::warning(CLOCK, reason, ErrorCode::ClockSkewed.cure())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_clock_that_is_off_is_told_in_words() {
        let noon = parse_date("Thu, 11 Dec 2025 12:00:00 GMT").unwrap();
        assert_eq!(noon.as_millis(), 1_765_454_400_000);
        let at = |seconds: i64| clock(Timestamp::from_millis(noon.as_millis() + seconds * 1000), Some(noon));
        for seconds in [-30, 0, 30] {
            assert_eq!(at(seconds).result, Verdict::Ok, "{seconds}");
        }
        for (seconds, words) in [
            (31, "31 s ahead of"),
            (-90, "1 min behind"),
            (301, "5 min ahead of"),
            (3 * 3600 + 120, "3 h 2 min ahead of"),
            (-90_000, "1 days 1 h behind"),
        ] {
            let found = at(seconds);
            assert_eq!(found.code, (seconds.abs() > 300).then_some(ErrorCode::ClockSkewed));
            assert_ne!(found.result, Verdict::Ok);
            assert!(found.reason.contains(words), "{found:?}");
        }
    }
}
