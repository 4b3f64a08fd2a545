//! Getting in through an identity provider: who gets in, and whom nothing helps.

#[path = "oidc/provider.rs"]
pub(crate) mod provider;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use controller_stub::config::{Config, Oidc};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use provider::{CLIENT, CLIENT_SECRET, Key, Mood, Provider};
use reqwest::{
    StatusCode,
    header::{COOKIE, LOCATION, SET_COOKIE},
};
use serde_json::{Value, json};

use crate::{
    harness::{Controller, http},
    pages::escaped,
};

/// Somebody's browser, with its cookies.
struct Browser {
    http: reqwest::Client,
    jar: BTreeMap<String, String>,
}

struct Page {
    status: StatusCode,
    location: String,
    cookies: Vec<String>,
    text: String,
}

impl Browser {
    fn new() -> Self {
        let _ = http();
        let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Self { http: builder.build().unwrap(), jar: BTreeMap::new() }
    }

    async fn get(&mut self, url: &str) -> Page {
        let cookies: Vec<_> = self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = self.http.get(url).header(COOKIE, cookies.join("; ")).send().await.unwrap();
        let texts = |name| answer.headers().get_all(name).iter().map(|it| it.to_str().unwrap().to_owned());
        let (cookies, location) = (texts(SET_COOKIE).collect::<Vec<_>>(), texts(LOCATION).next());
        for cookie in &cookies {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            match cookie.contains("Max-Age=0") {
                true => self.jar.remove(name),
                false => self.jar.insert(name.to_owned(), value.to_owned()),
            };
        }
        let status = answer.status();
        Page { status, location: location.unwrap_or_default(), cookies, text: answer.text().await.unwrap() }
    }

    /// Begins a sign-in as the form's button does, and says where the provider leads back to.
    async fn way_back(&mut self, controller: &Controller, next: &str) -> String {
        let form = self.get(&format!("{}/ui/login?next={}", controller.url(), escaped(next))).await;
        let (_, link) = form.text.split_once("<a class=\"button main\" href=\"").expect(&form.text);
        let (link, rest) = link.split_once('"').unwrap();
        assert!(rest.starts_with(">Sign in with Example ID<"), "{rest}");
        let sent = self.get(link).await;
        assert_eq!(sent.status, 303, "{}", sent.text);
        let cookie = sent.cookies.last().unwrap();
        for attribute in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=600"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        // The provider has cookies of its own.
        let back = Browser::new().get(&sent.location).await;
        assert_eq!(back.status, 302, "{}", back.text);
        back.location
    }

    async fn sign_in(&mut self, controller: &Controller, next: &str) -> Page {
        let back = self.way_back(controller, next).await;
        self.get(&back).await
    }

    fn is_signed_in(&self) -> bool {
        self.jar.contains_key("aio-session")
    }
}

impl Page {
    /// Asserts that nobody was signed in.
    fn refused(&self, status: u16, code: &str) -> &str {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert!(self.text.contains(code), "{code}: {}", self.text);
        assert!(!self.cookies.iter().any(|it| it.starts_with("aio-session")), "{:?}", self.cookies);
        &self.text
    }
}

fn configured(provider: &Provider) -> Oidc {
    let mut oidc = Oidc::new(provider.issuer.clone(), CLIENT);
    oidc.client_secret = Some(CLIENT_SECRET.into());
    oidc.name = "Example ID".to_owned();
    let role = |value: &str, role: &str| (value.to_owned(), role.to_owned());
    oidc.roles = vec![
        role("gpu-owners", "organization.owner"),
        role("gpu-admins", "organization.admin"),
        role("gpu-staff", "organization.viewer"),
    ];
    oidc.org_claim = Some("tenant".to_owned());
    oidc
}

/// A controller whose provider knows an admin of acme.
async fn with_provider(change: impl FnOnce(&mut Oidc)) -> (Controller, Provider) {
    with_provider_as("127.0.0.1", change).await
}

/// The same, with the provider under a name of this machine.
pub(crate) async fn with_provider_as(host: &str, change: impl FnOnce(&mut Oidc)) -> (Controller, Provider) {
    http();
    let provider = Provider::start_as(host, Key::elliptic("one")).await;
    provider.does(|it| it.claims = json!({"tenant": "acme", "roles": ["gpu-admins", "canteen"]}));
    let mut oidc = configured(&provider);
    change(&mut oidc);
    let controller = Controller::start_with(|config: &mut Config| config.oidc = Some(oidc)).await;
    (controller, provider)
}

#[tokio::test]
async fn oidc_signs_in_with_the_role_of_a_claim_and_leads_back_to_the_page() {
    let (controller, provider) = with_provider(|_| {}).await;
    for (value, role, manages) in [
        (json!(["gpu-admins", "canteen"]), "organization.admin", true),
        (json!("gpu-owners"), "organization.owner", true),
        (json!(["gpu-staff"]), "organization.viewer", false),
    ] {
        provider.does(|it| it.claims["roles"] = value.clone());
        let mut browser = Browser::new();
        let page = browser.sign_in(&controller, "ui/nodes?status=online").await;
        assert_eq!(page.status, 200, "{}", page.text);
        // No redirect: a browser would not send the strict cookie along.
        assert!(
            page.text.contains("<meta http-equiv=\"refresh\" content=\"0; url=ui/nodes?status=online\">"),
            "{}",
            page.text
        );
        let session = page.cookies.iter().find(|it| it.starts_with("aio-session=")).unwrap();
        assert!(session.contains("SameSite=Strict") && session.contains("HttpOnly"), "{session}");
        assert_eq!(browser.jar.len(), 1, "the sign-in's own cookie is gone: {:?}", browser.jar);
        let nodes = browser.get(&format!("{}/ui/nodes?status=online", controller.url())).await;
        assert!(nodes.status == 200 && nodes.text.contains(role), "{}", nodes.text);
        let audit = browser.get(&format!("{}/ui/audit", controller.url())).await;
        assert_eq!(audit.status.as_u16(), if manages { 200 } else { 403 }, "{role}");
    }
    let owner = controller.owner_of("acme").await;
    let (_, audit) = owner.get("/audit?action=session.begin").await;
    assert_eq!(audit["data"].as_array().unwrap().len(), 3, "{audit}");
    assert_eq!(audit["data"][0]["actor"], "user:ann");
    assert_eq!(provider.does(|it| it.keys_asked), 1);
}

#[tokio::test]
async fn oidc_takes_what_a_provider_with_rsa_and_posted_secrets_and_no_organisations_has() {
    http();
    let provider = Provider::start(Key::rsa("rsa")).await;
    provider.does(|it| {
        it.claims =
            json!({"realm_access": {"roles": ["gpu-staff"]}, "aud": [CLIENT, "others"], "azp": CLIENT});
        it.description["token_endpoint_auth_methods_supported"] = json!(["client_secret_post"]);
    });
    let mut oidc = configured(&provider);
    oidc.org_claim = None;
    oidc.role_claim = "realm_access.roles".to_owned();
    oidc.session = Duration::from_secs(600);
    let controller = Controller::start_with(|config: &mut Config| config.oidc = Some(oidc)).await;
    let page = Browser::new().sign_in(&controller, "").await;
    assert!(page.status == 200 && page.text.contains("content=\"0; url=./\""), "{}", page.text);
    let session = page.cookies.iter().find(|it| it.starts_with("aio-session=")).unwrap();
    assert!(["Max-Age=600", "Max-Age=599"].iter().any(|it| session.contains(it)), "{session}");
    let lasts = controller.number("SELECT expires_at - began_at FROM sessions").await;
    assert!((598_000..=600_000).contains(&lasts), "{lasts}");
    let org = controller.text_in_database("SELECT org_id FROM sessions").await;
    assert_eq!(org.len(), 24, "the controller's own: {org}");
}

#[tokio::test]
async fn oidc_lets_nobody_in_whose_claims_give_no_role_user_or_organisation() {
    let (controller, provider) = with_provider(|_| {}).await;
    for (claims, told) in [
        (json!({"tenant": "acme"}), "`roles`"),
        (json!({"tenant": "acme", "roles": []}), "`roles`"),
        (json!({"tenant": "acme", "roles": ["canteen", "organization.owner"]}), "`roles`"),
        (json!({"roles": ["gpu-admins"]}), "`tenant`"),
        (json!({"roles": ["gpu-admins"], "tenant": ["acme", "evil"]}), "`tenant`"),
        (json!({"roles": ["gpu-admins"], "tenant": "acme", "sub": "<b>"}), "`sub`"),
    ] {
        provider.does(|it| it.claims = claims.clone());
        let mut browser = Browser::new();
        let page = browser.sign_in(&controller, "").await;
        let text = page.refused(403, "OIDC_NO_ROLE");
        assert!(text.contains(told) && !text.contains("<b>\""), "{claims}: {text}");
        assert!(browser.jar.is_empty(), "{:?}", browser.jar);
    }
    assert_eq!(controller.number("SELECT COUNT(*) FROM sessions").await, 0);
}

#[tokio::test]
async fn oidc_ends_a_sign_in_in_the_browser_that_began_it_alone_and_once() {
    let (controller, provider) = with_provider(|_| {}).await;
    let mut browser = Browser::new();
    let back = browser.way_back(&controller, "").await;
    let begun = browser.jar.clone();
    // Another browser, as one that is made to open somebody else's way back.
    let mut other = Browser::new();
    other.get(&back).await.refused(400, "OIDC_STATE_INVALID");
    let theirs = other.way_back(&controller, "").await;
    other.get(&back).await.refused(400, "OIDC_STATE_INVALID");
    let (head, state) = back.split_once("state=").unwrap();
    let (_, foreign) = theirs.split_once("state=").unwrap();
    for state in ["", "x", &state[1..], &format!("{}x", &state[..8]), foreign] {
        let page = browser.get(&format!("{head}state={state}")).await;
        page.refused(400, "OIDC_STATE_INVALID");
    }
    assert_eq!(browser.get(&back).await.status, 200);
    // The same cookies and code again: the provider takes no code twice, and where it does, we do not.
    for (forgets, status, code) in [(false, 403, "OIDC_REFUSED"), (true, 400, "OIDC_STATE_INVALID")] {
        provider.does(|it| it.forgets = forgets);
        let mut browser = Browser::new();
        let back = browser.way_back(&controller, "").await;
        let begun = browser.jar.clone();
        assert_eq!(browser.get(&back).await.status, 200);
        browser.jar = begun;
        browser.get(&back).await.refused(status, code);
    }
    browser.jar = begun;
    browser.get(&back).await.refused(403, "OIDC_REFUSED");
}

#[tokio::test]
async fn oidc_says_what_the_provider_says_when_it_refuses() {
    let (controller, _provider) = with_provider(|it| it.client_secret = Some("another".into())).await;
    let mut browser = Browser::new();
    let text = browser.sign_in(&controller, "").await;
    assert!(text.refused(403, "OIDC_REFUSED").contains("invalid_client"));
    let back = browser.way_back(&controller, "").await;
    let denied = back.replace("code=code+", "error=access_denied<script>&x=");
    let page = browser.get(&denied).await;
    let text = page.refused(403, "OIDC_REFUSED");
    assert!(text.contains("access_denied&#60;script") && !text.contains("<script>"), "{text}");
    assert!(browser.jar.is_empty(), "a sign-in that was refused is over: {:?}", browser.jar);
    // A code that another provider gave is shown to nobody.
    let back = browser.way_back(&controller, "").await;
    for (from, to) in [("iss=http", "iss=https"), ("&iss=", "&other=")] {
        let cookies = browser.jar.clone();
        browser.get(&back.replace(from, to)).await.refused(403, "OIDC_REFUSED");
        browser.jar = cookies;
    }
    assert!(!browser.is_signed_in());
}

fn unsigned(claims: &Value, _: &Key) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.", part(json!({"alg": "none", "typ": "JWT"}).to_string()), part(claims.to_string()))
}

fn with_secret(claims: &Value, secret: &[u8], id: &str) -> String {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(id.to_owned());
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret)).unwrap()
}

/// HS256 with the bytes of the published key for a secret.
fn by_public_key(claims: &Value, key: &Key) -> String {
    let public = rcgen::KeyPair::from_pem(&key.pem).unwrap().public_key_pem();
    with_secret(claims, public.as_bytes(), key.id)
}

fn by_client_secret(claims: &Value, _: &Key) -> String {
    with_secret(claims, CLIENT_SECRET.as_bytes(), "shared")
}

/// A stranger's key under the name of the published one.
fn by_stranger(claims: &Value, key: &Key) -> String {
    Key::elliptic(key.id).sign(claims)
}

fn cut(claims: &Value, key: &Key) -> String {
    key.sign(claims).rsplit_once('.').unwrap().0.to_owned()
}

fn of_another_algorithm(claims: &Value, key: &Key) -> String {
    let token = key.sign(claims);
    let (_, rest) = token.split_once('.').unwrap();
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(json!({"alg": "RS256", "kid": key.id}).to_string()))
}

#[tokio::test]
async fn oidc_believes_no_id_token_but_the_provider_s_for_this_sign_in() {
    let (controller, provider) = with_provider(|_| {}).await;
    let now = i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap();
    let good = provider.does(|it| it.claims.clone());
    for (claim, value, told) in [
        ("nonce", json!("of another"), "another sign-in"),
        ("nonce", Value::Null, "`nonce`"),
        ("iss", json!("https://evil.example"), "another issuer"),
        ("iss", Value::Null, "`iss`"),
        ("aud", json!("another client"), "another client"),
        ("aud", json!(["another client"]), "another client"),
        ("aud", json!([CLIENT, "another client"]), "another client"),
        ("aud", Value::Null, "`aud`"),
        ("azp", json!("another client"), "another client"),
        ("exp", json!(now - 60), "expired"),
        ("exp", Value::Null, "`exp`"),
        ("nbf", json!(now + 600), "not valid yet"),
        ("sub", Value::Null, "`sub`"),
    ] {
        provider.does(|it| it.claims[claim] = value.clone());
        let mut browser = Browser::new();
        let page = browser.sign_in(&controller, "").await;
        let text = page.refused(403, "OIDC_TOKEN_INVALID");
        assert!(text.contains(told), "{claim} {value}: {text}");
        assert!(browser.jar.is_empty());
        provider.does(|it| it.claims = good.clone());
    }
    type Forge = fn(&Value, &Key) -> String;
    let forgeries: [(Forge, &str); 6] = [
        (unsigned, "algorithm"),
        (by_public_key, "algorithm"),
        (by_client_secret, "algorithm"),
        (by_stranger, "signature"),
        (cut, "no JWT"),
        (of_another_algorithm, "does not publish"),
    ];
    for (forge, told) in forgeries {
        provider.does(|it| it.token = Some(forge));
        let page = Browser::new().sign_in(&controller, "").await;
        let text = page.refused(403, "OIDC_TOKEN_INVALID");
        assert!(text.contains(told), "{told}: {text}");
    }
    assert_eq!(controller.number("SELECT COUNT(*) FROM sessions").await, 0);
    provider.does(|it| it.token = None);
    assert_eq!(Browser::new().sign_in(&controller, "").await.status, 200);
}

#[tokio::test]
async fn oidc_asks_for_keys_again_when_one_is_unknown_and_not_at_every_token() {
    let (controller, provider) = with_provider(|_| {}).await;
    assert_eq!(Browser::new().sign_in(&controller, "").await.status, 200);
    let next = Key::elliptic("two");
    provider.does(|it| (it.keys.push(next.clone()), it.signs = next.clone()));
    for _ in 0..2 {
        assert_eq!(Browser::new().sign_in(&controller, "").await.status, 200);
    }
    assert_eq!(provider.does(|it| it.keys_asked), 2);
    provider.does(|it| it.signs = Key::elliptic("unpublished"));
    for _ in 0..5 {
        let page = Browser::new().sign_in(&controller, "").await;
        assert!(page.refused(403, "OIDC_TOKEN_INVALID").contains("does not publish"));
    }
    let asked = provider.does(|it| it.keys_asked);
    assert!((3..=4).contains(&asked), "{asked}");
    provider.does(|it| it.signs = next);
    assert_eq!(Browser::new().sign_in(&controller, "").await.status, 200);
}

#[tokio::test]
async fn oidc_knows_a_key_without_a_name_and_one_that_has_taken_the_name_of_another() {
    let (controller, provider) = with_provider(|_| {}).await;
    assert_eq!(Browser::new().sign_in(&controller, "").await.status, 200);
    let published = |key: &Key| provider.does(|it| (it.keys = vec![key.clone()], it.signs = key.clone()));
    let name = provider.does(|it| it.signs.id);
    let nameless = Key::elliptic("");
    for key in [Key::elliptic(name), nameless.clone()] {
        published(&key);
        assert_eq!(Browser::new().sign_in(&controller, "").await.status, 200, "{}", key.id);
    }
    provider.does(|it| it.signs = Key { id: "named", ..nameless });
    assert_eq!(Browser::new().sign_in(&controller, "").await.status, 200);
}

#[tokio::test]
async fn oidc_is_unavailable_while_the_provider_fails_hangs_or_never_ends() {
    for (address, mood, told) in [
        ("describe", Mood::Failing, "503"),
        ("describe", Mood::Endless, "longer than"),
        ("describe", Mood::Elsewhere, "302"),
        ("describe", Mood::Hanging, "in time"),
        ("token", Mood::Failing, "503"),
        ("token", Mood::Endless, "longer than"),
        ("token", Mood::Hanging, "in time"),
        ("keys", Mood::Failing, "503"),
        ("keys", Mood::Endless, "longer than"),
    ] {
        let (controller, provider) = with_provider(|_| {}).await;
        let mut browser = Browser::new();
        let url = if address == "describe" {
            format!("{}/ui/login/oidc", controller.url())
        } else {
            browser.way_back(&controller, "").await
        };
        provider.does(|it| it.moods.insert(address, mood));
        let began = Instant::now();
        let (page, form) = {
            let mut second = Browser::new();
            let form = format!("{}/ui/login", controller.url());
            tokio::join!(browser.get(&url), async move { second.get(&form).await })
        };
        assert!(page.refused(502, "OIDC_UNAVAILABLE").contains(told), "{mood:?}: {}", page.text);
        assert!(began.elapsed() < Duration::from_secs(15), "{mood:?}");
        assert_eq!(form.status, 200, "the form is there while the provider is not");
        provider.does(|it| it.moods.clear());
        // A code that nothing has come of is good for another try.
        let again = match address {
            "token" => browser.get(&url).await,
            _ => browser.sign_in(&controller, "").await,
        };
        assert_eq!(again.status, 200, "{address} {mood:?}: {}", again.text);
    }
}

#[tokio::test]
async fn oidc_takes_no_description_of_another_issuer_or_in_the_clear() {
    for (name, value, told) in [
        ("issuer", json!("https://evil.example"), "evil.example"),
        ("jwks_uri", json!("http://192.0.2.1/keys"), "neither https"),
        ("token_endpoint", json!("http://id.example/token"), "neither https"),
        ("authorization_endpoint", json!("javascript:alert(1)"), "neither https"),
        ("token_endpoint", Value::Null, "not understood"),
    ] {
        let (controller, provider) = with_provider(|_| {}).await;
        provider.does(|it| it.description[name] = value.clone());
        let page = Browser::new().get(&format!("{}/ui/login/oidc", controller.url())).await;
        assert!(page.refused(502, "OIDC_UNAVAILABLE").contains(told), "{name}: {}", page.text);
    }
}

#[tokio::test]
async fn oidc_takes_an_issuer_to_the_letter_with_a_slash_at_its_end_or_without() {
    for (configured, good) in [("/", true), ("", false)] {
        http();
        let provider = Provider::start(Key::elliptic("one")).await;
        let issuer = format!("{}/", provider.issuer);
        provider.does(|it| {
            it.claims = json!({"tenant": "acme", "roles": "gpu-staff"});
            it.description["issuer"] = json!(issuer);
        });
        let mut oidc = self::configured(&provider);
        oidc.issuer.push_str(configured);
        let controller = Controller::start_with(|config: &mut Config| config.oidc = Some(oidc)).await;
        let mut browser = Browser::new();
        if good {
            assert_eq!(browser.sign_in(&controller, "").await.status, 200);
        } else {
            let page = browser.get(&format!("{}/ui/login/oidc", controller.url())).await;
            assert!(page.refused(502, "OIDC_UNAVAILABLE").contains(&issuer), "{}", page.text);
        }
    }
}

#[tokio::test]
async fn oidc_leads_back_to_pages_of_ours_alone() {
    let (controller, _provider) = with_provider(|_| {}).await;
    for next in [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "ui/../../evil",
        "javascript:alert(1)",
        "ui/nodes;url=https://evil.example",
        "ui/nodes\"><script>",
        &format!("ui/nodes?q={}", "x".repeat(2000)),
    ] {
        let mut browser = Browser::new();
        let begun = format!("{}/ui/login/oidc?next={}", controller.url(), escaped(next));
        let sent = browser.get(&begun).await;
        let back = Browser::new().get(&sent.location).await;
        let page = browser.get(&back.location).await;
        assert!(page.status == 200 && page.text.contains("content=\"0; url=./\""), "{next}: {}", page.text);
    }
}

#[tokio::test]
async fn oidc_signs_two_tabs_in_at_once_and_forgets_what_was_begun_in_vain() {
    let (controller, _provider) = with_provider(|_| {}).await;
    let mut browser = Browser::new();
    let first = browser.way_back(&controller, "ui/nodes").await;
    let second = browser.way_back(&controller, "ui/alarms").await;
    assert_eq!(browser.jar.len(), 2);
    for (back, page) in [(second, "ui/alarms"), (first, "ui/nodes")] {
        let shown = browser.get(&back).await;
        assert!(shown.status == 200 && shown.text.contains(&format!("url={page}\"")), "{}", shown.text);
    }
    assert!(browser.is_signed_in() && browser.jar.len() == 1);
    browser.jar.clear();
    for _ in 0..8 {
        browser.way_back(&controller, "").await;
    }
    assert!(browser.jar.len() <= 5, "{:?}", browser.jar);
}

#[tokio::test]
async fn oidc_is_nowhere_where_no_provider_is_configured() {
    let controller = Controller::start().await;
    let mut browser = Browser::new();
    let form = browser.get(&format!("{}/ui/login", controller.url())).await;
    assert!(form.status == 200 && !form.text.contains("Sign in with"), "{}", form.text);
    for path in ["/ui/login/oidc", "/ui/login/oidc/callback?code=x&state=y"] {
        browser.get(&format!("{}{path}", controller.url())).await.refused(404, "NOT_FOUND");
    }
}
