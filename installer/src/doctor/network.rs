//! What the token says, and whether the controller that it names is there, is trusted, knows the
//! node, and has the same time.

use std::time::{Duration, Instant, SystemTime};

use ::http::Uri;
use aio_host::{
    dial,
    proxy::Blocked,
    tls::{self, Trust},
    token::NodeToken,
};
use aio_protocol::{error_code::ErrorCode, release::Platform, time::Timestamp};
use reqwest::{Client, Url};
use secrecy::SecretString;
use tokio::{net::lookup_host, time::timeout};

use super::{examination::Examination, finding::Finding};
use crate::{
    bootstrap::{self, Way},
    controller::{
        aiwm::AiwmService,
        calls::Controller,
        http,
        route::{ProxyChoice, Route, RouteOptions},
    },
    failure::Failure,
    token,
    transaction::checkpoint::Uneventful,
};

/// Tokens are accepted this long before they begin and after they end.
const TOKEN_LEEWAY: Duration = Duration::from_secs(30);

/// What Kerberos allows as well: beyond it, no date in a log or a certificate can be trusted.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(300);

/// For a name, and for the time.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

const TOKEN: &str = "token";
const NAME: &str = "name";
const PROXY: &str = "proxy";
const CONNECTION: &str = "connection";
const TRUST: &str = "trust";
const CONTROLLER: &str = "controller";
const NODE: &str = "node";
const CLOCK: &str = "clock";
const ENDPOINT: &str = "endpoint";

/// All that needs a token which says where the controller is.
const OF_CONTROLLER: [&str; 8] = [PROXY, NAME, CONNECTION, TRUST, CONTROLLER, NODE, CLOCK, ENDPOINT];

/// Looks at the token that was given, or else at the one that is installed.
pub(super) async fn examine(examination: &Examination, installed: Option<SecretString>) -> Vec<Finding> {
    let all_but_token = |reason: &str| OF_CONTROLLER.map(|check| Finding::skipped(check, reason));
    let Some(text) = examination.token.clone().or(installed) else {
        let reason = "there is no token; pass --token-file to look at it and at the controller";
        return [Finding::skipped(TOKEN, reason)].into_iter().chain(all_but_token(reason)).collect();
    };
    // An ended token still says which controller it is from.
    let now = Timestamp::from(SystemTime::now());
    let text = match setup(&text, examination).await {
        Ok(credentials) => credentials.unwrap_or(text),
        Err(failure) => {
            let failed = Finding::failed(TOKEN, failure.code, failure.message);
            let rest = all_but_token("the setup token says nothing of an AIWM");
            return [failed].into_iter().chain(rest).collect();
        }
    };
    let token = match token::parse(&text, Timestamp::from_millis(0)) {
        Ok(token) => token,
        Err(failure) => {
            let failed = Finding::failed(TOKEN, failure.code, failure.message);
            return [failed]
                .into_iter()
                .chain(all_but_token("the token says nothing of a controller"))
                .collect();
        }
    };
    let mut findings = vec![Finding::of(TOKEN, token::parse(&text, now).map(|token| life(&token, now)))];
    let options = RouteOptions {
        ca_file: examination.ca_file.clone(),
        proxy: examination.proxy.clone(),
        insecure_http: examination.insecure_http,
        ..RouteOptions::default()
    };
    match Route::to_controller(token.claims(), &options, &examination.layout) {
        Ok(route) => findings.extend(follow(&route, examination, &token).await),
        Err(failure) => {
            // A proxy that cannot be used is one check's trouble, an address that cannot be
            // another's.
            let check = if failure.code == ErrorCode::ConfigInvalid { PROXY } else { CONTROLLER };
            let skipped = all_but_token("the route to the controller cannot be used");
            findings.push(Finding::failed(check, failure.code, failure.message));
            findings.extend(skipped.into_iter().filter(|finding| finding.check != check));
        }
    }
    findings
}

/// What a setup token makes known, without being used.
async fn setup(text: &SecretString, examination: &Examination) -> Result<Option<SecretString>, Failure> {
    if !bootstrap::is_setup_token(text) {
        return Ok(None);
    }
    let way = Way {
        ca_file: examination.ca_file.clone(),
        proxy: examination.proxy.clone(),
        insecure_http: examination.insecure_http,
        dry_run: true,
    };
    let token = bootstrap::bootstrap(&examination.layout, text, &way, &Uneventful).await?;
    Ok(Some(token.secret().clone()))
}

fn life(token: &NodeToken, now: Timestamp) -> String {
    let claims = token.claims();
    if token.aiwm().is_some() {
        return format!("credentials of node {} of AIWM, which do not end", claims.sub);
    }
    let days = claims.expires_at().since(now).as_secs() / 86_400;
    format!("of node {}, ends in {days} days, at {}", claims.sub, claims.expires_at())
}

/// The route to the controller, from the nearest to the farthest: proxy, name, connection, trust,
/// answer; and where the worker connects.
async fn follow(route: &Route, examination: &Examination, token: &NodeToken) -> Vec<Finding> {
    let Route { base, trust, proxy, .. } = route;
    let direct = || "none; the controller is reached directly".to_owned();
    let mut findings = vec![
        Finding::ok(PROXY, proxy.in_words().unwrap_or_else(direct)),
        name(base, proxy).await,
        Finding::of(CONNECTION, connection(base.as_str(), proxy).await),
    ];
    match route.client() {
        Ok(client) => {
            findings.push(trusted(trust, base));
            findings.extend(ask(&client, base, examination, token).await);
        }
        Err(failure) => {
            findings.push(Finding::failed(TRUST, failure.code, failure.message));
            let skipped = |check| Finding::skipped(check, "nobody is known to trust");
            findings.extend([CONTROLLER, NODE, CLOCK].map(skipped));
        }
    }
    let endpoint = connection(&token.claims().ctl, proxy).await;
    findings.push(Finding::of(
        ENDPOINT,
        endpoint.map(|reached| format!("{reached}; the worker opens no port of its own")),
    ));
    findings
}

async fn name(base: &Url, choice: &ProxyChoice) -> Finding {
    let (host, port) = (base.host_str().unwrap_or_default(), base.port_or_known_default().unwrap_or(443));
    if choice.proxy.is_some() {
        return Finding::skipped(NAME, "a proxy looks for the controller's name");
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let failed = |why: String| {
        Finding::failed(NAME, ErrorCode::ControllerUnreachable, format!("{host} cannot be resolved: {why}"))
    };
    match timeout(CHECK_TIMEOUT, lookup_host((host, port))).await {
        Err(_) => failed(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())),
        Ok(Err(error)) => failed(error.to_string()),
        Ok(Ok(found)) => {
            let mut addresses: Vec<_> = found.map(|address| address.ip().to_string()).collect();
            addresses.dedup();
            Finding::ok(NAME, format!("{host} is {}", addresses.join(", ")))
        }
    }
}

/// A bare connection to where `url` leads, through the proxy if there is one: what a firewall in
/// between would not let through.
async fn connection(url: &str, choice: &ProxyChoice) -> Result<String, Failure> {
    let uri: Uri = url.parse().map_err(|error| {
        Failure::new(ErrorCode::ControllerInvalid, format!("`{url}` is not a URL: {error}"))
    })?;
    let usual = if matches!(uri.scheme_str(), Some("https" | "wss")) { 443 } else { 80 };
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(usual));
    let began = Instant::now();
    let connected = async {
        match &choice.proxy {
            Some(proxy) => proxy.connect(&uri).await.map(drop).map_err(|error| {
                let code = match error {
                    Blocked::Unreachable(_) => ErrorCode::ControllerUnreachable,
                    Blocked::Refused(_) => ErrorCode::ProxyRefused,
                };
                (code, format!("through {}: {error}", proxy.address()))
            }),
            None => {
                let connected = dial::connect(host, port).await;
                connected.map(drop).map_err(|error| (ErrorCode::ControllerUnreachable, error.to_string()))
            }
        }
    };
    let late =
        || (ErrorCode::ControllerUnreachable, format!("no connection within {} s", CHECK_TIMEOUT.as_secs()));
    match timeout(CHECK_TIMEOUT, connected).await.unwrap_or_else(|_| Err(late())) {
        Ok(()) => Ok(format!("{host}:{port} takes connections, within {} ms", began.elapsed().as_millis())),
        Err((code, why)) => Err(Failure::new(code, format!("{host}:{port} is not reached: {why}"))),
    }
}

/// Whom an installation would trust there, and what is wrong with the operating system's store
/// where that counts.
fn trusted(trust: &Trust, base: &Url) -> Finding {
    let words = authorities(trust, base);
    if trust.pin.is_some() || base.scheme() == "http" {
        return Finding::ok(TRUST, words);
    }
    let unusable = tls::unusable_files();
    let Some((path, reason)) = unusable.first() else { return Finding::ok(TRUST, words) };
    let others = match unusable.len() - 1 {
        0 => String::new(),
        others => format!(", and {others} other files"),
    };
    let reason = format!("{words}, without what cannot be read: {} ({reason}){others}", path.display());
    let cure =
        "Remove the file or put the right certificate there, then run sudo update-ca-certificates --fresh.";
    Finding::warning(TRUST, reason, cure)
}

/// Whom an installation would trust there.
fn authorities(trust: &Trust, base: &Url) -> String {
    if base.scheme() == "http" {
        return "not needed: the controller is reached without TLS".to_owned();
    }
    match (&trust.pin, &trust.ca_file) {
        (Some(_), _) => "the controller's own authority, which the token names".to_owned(),
        (None, Some(path)) => format!("the operating system's authorities, and those in {}", path.display()),
        (None, None) => "the operating system's authorities".to_owned(),
    }
}

async fn ask(client: &Client, base: &Url, examination: &Examination, token: &NodeToken) -> Vec<Finding> {
    let health = if token.aiwm().is_some() { "health" } else { "healthz" };
    let address = format!("{}/{health}", base.as_str().trim_end_matches('/'));
    let asked = Instant::now();
    let answer = match client.get(&address).timeout(CHECK_TIMEOUT).send().await {
        Ok(answer) => answer,
        Err(error) => {
            let (code, words) = match tls::explain(&error) {
                Some(objection) => (objection.code, objection.message),
                None if http::is_refused_by_proxy(&error) => (ErrorCode::ProxyRefused, http::reason(error)),
                None => (ErrorCode::ControllerUnreachable, http::reason(error)),
            };
            let skipped = |check| Finding::skipped(check, "the controller was not reached");
            let failed = Finding::failed(CONTROLLER, code, format!("{base}: {words}"));
            return vec![failed, skipped(NODE), skipped(CLOCK)];
        }
    };
    let took = asked.elapsed();
    let clock = clock(SystemTime::now().into(), http::their_time(&answer));
    let version = answer.json::<serde_json::Value>().await.ok();
    let version = version.and_then(|health| Some(format!(" (version {})", health.get("version")?.as_str()?)));
    let reached = format!("{base} answers within {} ms{}", took.as_millis(), version.unwrap_or_default());
    let node = match Platform::of_architecture(std::env::consts::ARCH) {
        _ if token.aiwm().is_some() => login(examination, token).await,
        Some(platform) => Finding::of(NODE, plan(client, base, examination, token, platform).await),
        None => Finding::skipped(NODE, "there is no release for this processor"),
    };
    vec![Finding::ok(CONTROLLER, reached), node, clock]
}

/// Whether AIWM takes the node's secret.
async fn login(examination: &Examination, token: &NodeToken) -> Finding {
    let secret = token.aiwm().map(|credentials| credentials.secret.0.clone()).unwrap_or_default();
    if secret.is_empty() {
        return Finding::skipped(NODE, "a setup token works once, and is not tried");
    }
    let options = RouteOptions {
        ca_file: examination.ca_file.clone(),
        proxy: examination.proxy.clone(),
        insecure_http: examination.insecure_http,
        ..RouteOptions::default()
    };
    let logged_in = async {
        let route = Route::to_controller(token.claims(), &options, &examination.layout)?;
        let proxy = route.proxy.proxy.as_ref();
        let service = AiwmService::at(&route.base_text(), &route.trust, proxy, options.insecure_http)?;
        service.login(&token.claims().sub, &secret).await
    };
    Finding::of(
        NODE,
        logged_in.await.map(|granted| {
            format!("AIWM takes the secret, and gives tokens for {} min", granted.life.as_secs() / 60)
        }),
    )
}

async fn plan(
    client: &Client,
    base: &Url,
    examination: &Examination,
    token: &NodeToken,
    platform: Platform,
) -> Result<String, Failure> {
    let controller = Controller::new(client, base, token, token::bearer(token, &examination.layout))?;
    let plan = match controller.plan(platform).await {
        Err(failure) if failure.code == ErrorCode::ReleaseNotFound && examination.layout.is_packaged() => {
            return Ok(
                "the token is good; the controller offers no release, and the package needs none".to_owned()
            );
        }
        planned => planned?,
    };
    Ok(format!("{} ({}) is {}, and gets {}", plan.node_name, plan.node_id, plan.status, plan.version))
}

pub(super) fn clock(ours: Timestamp, theirs: Option<Timestamp>) -> Finding {
    let Some(theirs) = theirs else {
        return Finding::skipped(CLOCK, "the controller does not say what time it is");
    };
    let (ahead, behind) = (ours.since(theirs), theirs.since(ours));
    let (difference, side) = if ahead > behind { (ahead, "ahead of") } else { (behind, "behind") };
    if difference <= TOKEN_LEEWAY {
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
    if difference > MAX_CLOCK_SKEW {
        return Finding::failed(CLOCK, ErrorCode::ClockSkewed, reason);
    }
    Finding::warning(CLOCK, reason, ErrorCode::ClockSkewed.cure())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn a_clock_that_is_off_is_told_in_words() {
        let noon = aio_protocol::retry_after::date("Thu, 11 Dec 2025 12:00:00 GMT").unwrap();
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
