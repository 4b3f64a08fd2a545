//! The pages over HTTP: getting in and out, who may send a form, and what a role sees.

#[path = "pages/axe.rs"]
mod axe;
#[path = "pages/browser.rs"]
mod browser;
#[path = "pages/screenshots.rs"]
mod screenshots;
#[path = "pages/webdriver.rs"]
mod webdriver;

use controller_stub::commands::{self, For};
use reqwest::{
    Method, Response, StatusCode,
    header::{COOKIE, LOCATION, SET_COOKIE},
};

use serde_json::json;

use crate::{
    harness::{Controller, eventually, http},
    peers::Worker,
    telemetry::{containers, metrics_with},
};

/// Somebody's browser, as far as HTTP goes.
pub(crate) struct Browser {
    http: reqwest::Client,
    base: String,
    cookie: Option<String>,
}

pub(crate) fn whose(org: &str, user: &str) -> For {
    For { org: Some(org.parse().unwrap()), user: Some(user.parse().unwrap()) }
}

/// A link that signs in once.
pub(crate) async fn link(controller: &Controller, org: &str, role: &str) -> String {
    let whose = whose(org, "ann");
    commands::login_link(&controller.config, whose, vec![role.into()], 3600, 60).await.unwrap()
}

impl Browser {
    pub(crate) fn of(controller: &Controller) -> Self {
        let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let _ = http();
        Self { http: builder.build().unwrap(), base: controller.url(), cookie: None }
    }

    pub(crate) async fn signed_in(controller: &Controller, org: &str, role: &str) -> Self {
        let link = link(controller, org, role).await;
        let mut browser = Self::of(controller);
        let answer = browser.send(Method::POST, link.strip_prefix(&browser.base).unwrap(), &[]).await;
        assert_eq!(answer.status(), 303, "{}", answer.text().await.unwrap());
        browser.keep_cookie(&answer);
        browser
    }

    fn keep_cookie(&mut self, answer: &Response) {
        let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
        for attribute in ["HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        self.cookie = Some(cookie.split(';').next().unwrap().to_owned());
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, String) {
        let mut request = self.http.get(format!("{}{path}", self.base));
        if let Some(cookie) = &self.cookie {
            request = request.header(COOKIE, cookie);
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    async fn send(&self, method: Method, path: &str, fields: &[(&str, &str)]) -> Response {
        self.send_from(method, path, fields, "same-origin").await
    }

    async fn send_from(&self, method: Method, path: &str, fields: &[(&str, &str)], site: &str) -> Response {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(cookie) = &self.cookie {
            request = request.header(COOKIE, cookie);
        }
        if !site.is_empty() {
            request = request.header("sec-fetch-site", site);
        }
        let body: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        request
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.join("&"))
            .send()
            .await
            .unwrap()
    }

    /// Sends a form of a page, with the page's token.
    pub(crate) async fn submit(
        &self,
        page: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> (StatusCode, String) {
        let form = self.form_token(page).await;
        let mut fields = fields.to_vec();
        fields.push(("form", &form));
        let answer = self.send(Method::POST, path, &fields).await;
        let location = answer.headers().get(LOCATION).map(|it| it.to_str().unwrap().to_owned());
        (answer.status(), location.unwrap_or(answer.text().await.unwrap()))
    }

    async fn form_token(&self, page: &str) -> String {
        let (status, text) = self.get(page).await;
        assert_eq!(status, 200, "{text}");
        let (_, rest) = text.split_once("name=\"form\" value=\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    }
}

pub(crate) fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Every page that stands alone.
pub(crate) const PAGES: [&str; 9] = [
    "/",
    "/ui/nodes",
    "/ui/add",
    "/ui/alarms",
    "/ui/updates",
    "/ui/events",
    "/ui/delivery",
    "/ui/audit",
    "/ui/access",
];

#[tokio::test]
async fn a_link_signs_in_once_and_says_so_before() {
    let controller = Controller::start().await;
    let (browser, link) = (Browser::of(&controller), link(&controller, "acme", "organization.owner").await);
    let path = link.strip_prefix(&controller.url()).unwrap();
    // Whoever only looks at it uses nothing up.
    for _ in 0..2 {
        let (status, page) = browser.get(path).await;
        assert!(status == 200 && page.contains("ann") && page.contains("organization.owner"), "{page}");
    }
    let (first, second) =
        tokio::join!(browser.send(Method::POST, path, &[]), browser.send(Method::POST, path, &[]));
    let mut statuses = [first.status().as_u16(), second.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 410]);
    let (status, page) = browser.get(path).await;
    assert!(status == 410 && page.contains("LOGIN_LINK_INVALID"), "{status} {page}");
    controller.sql("UPDATE login_links SET expires_at = 1").await;
    let late = self::link(&controller, "acme", "organization.owner").await;
    controller.sql("UPDATE login_links SET expires_at = 1").await;
    let answer = browser.send(Method::POST, late.strip_prefix(&controller.url()).unwrap(), &[]).await;
    assert_eq!(answer.status(), 410);
}

#[tokio::test]
async fn a_user_s_token_signs_in_and_another_text_does_not() {
    let controller = Controller::start().await;
    let mut browser = Browser::of(&controller);
    let token = commands::user_token(
        &controller.config,
        whose("acme", "ann"),
        vec!["organization.viewer".into()],
        3600,
    );
    let token = token.await.unwrap();
    let owner = controller.owner_of("acme").await;
    let of_node = owner.token_of(&owner.add_node("gpu").await).await;
    for (text, told) in
        [("nonsense", "TOKEN_INVALID"), (of_node.as_str(), "FORBIDDEN"), ("", "TOKEN_INVALID")]
    {
        let answer = browser.send(Method::POST, "/ui/login", &[("token", text)]).await;
        let (status, cookie) = (answer.status(), answer.headers().get(SET_COOKIE).cloned());
        let page = answer.text().await.unwrap();
        assert!(
            status == 401 && cookie.is_none() && page.contains(told) && !page.contains("nonsense"),
            "{page}"
        );
    }
    let fields = [("token", token.as_str()), ("next", "ui/nodes?status=online")];
    let answer = browser.send(Method::POST, "/ui/login", &fields).await;
    assert_eq!(answer.headers()[LOCATION], "../ui/nodes?status=online");
    browser.keep_cookie(&answer);
    assert_eq!(browser.get("/ui/nodes?status=online").await.0, 200);
    for next in ["//evil.example", "https://evil.example", "/\\evil.example"] {
        let answer = browser.send(Method::POST, "/ui/login", &[("token", &token), ("next", next)]).await;
        assert_eq!(answer.headers()[LOCATION], "../", "{next}");
    }
}

#[tokio::test]
async fn nobody_sees_a_page_without_a_session_and_each_leads_back() {
    let controller = Controller::start().await;
    let browser = Browser::of(&controller);
    for page in PAGES {
        let answer = browser.http.get(format!("{}{page}", browser.base)).send().await.unwrap();
        let location = answer.headers()[LOCATION].to_str().unwrap().to_owned();
        assert!(answer.status() == 303 && location.contains("ui/login"), "{page} {location}");
        assert!(
            page == "/" || location.ends_with(&format!("next={}", escaped_page(page))),
            "{page} {location}"
        );
    }
    let answer = browser.http.get(format!("{}/ui/nodes", browser.base)).header("x-aio-fragment", "1");
    assert_eq!(answer.send().await.unwrap().status(), 401);
}

fn escaped_page(page: &str) -> String {
    page.trim_start_matches('/').replace('/', "%2F")
}

#[tokio::test]
async fn a_form_is_taken_from_our_own_page_with_the_session_s_own_token_alone() {
    let controller = Controller::start().await;
    let id = controller.owner_of("acme").await.add_node("gpu-01").await;
    let browser = Browser::signed_in(&controller, "acme", "organization.owner").await;
    let other = Browser::signed_in(&controller, "acme", "organization.owner").await;
    let path = format!("/ui/nodes/{id}/rename");
    let (own, theirs) = (browser.form_token("/").await, other.form_token("/").await);
    for (form, site) in [
        (own.as_str(), "cross-site"),
        (own.as_str(), "same-site"),
        (own.as_str(), "none"),
        (own.as_str(), ""),
        ("", "same-origin"),
        (theirs.as_str(), "same-origin"),
    ] {
        let fields = [("form", form), ("name", "stolen")];
        let answer = browser.send_from(Method::POST, &path, &fields, site).await;
        assert_eq!(answer.status(), 403, "{form} {site}");
    }
    assert_eq!(controller.owner_of("acme").await.node(&id).await["name"], "gpu-01");
    let (status, to) = browser.submit("/", &path, &[("name", "gpu-02")]).await;
    assert!(status == 303 && to.starts_with(&format!("../../../ui/nodes/{id}?done=")), "{to}");
    assert_eq!(controller.owner_of("acme").await.node(&id).await["name"], "gpu-02");
    let trail = controller.text_in_database(
        "SELECT action || ' ' || actor || ' ' || outcome FROM audit WHERE node_id IS NOT NULL ORDER BY seq DESC LIMIT 1",
    );
    assert_eq!(trail.await, "node.update user:ann done");
}

#[tokio::test]
async fn a_session_ends_by_signing_out_by_the_command_and_with_its_key() {
    let mut controller = Controller::start().await;
    let ends = async |browser: &Browser| browser.get("/").await.0 == 303;
    let (one, two) = (
        Browser::signed_in(&controller, "acme", "organization.owner").await,
        Browser::signed_in(&controller, "acme", "organization.owner").await,
    );
    let (status, to) = one.submit("/", "/ui/logout", &[]).await;
    assert_eq!((status.as_u16(), to.as_str()), (303, "../ui/login"));
    assert!(ends(&one).await && !ends(&two).await);
    assert_eq!(commands::end_sessions(&controller.config, whose("acme", "bob"), false).await.unwrap(), 0);
    assert!(!ends(&two).await);
    let waiting = link(&controller, "acme", "organization.owner").await;
    assert_eq!(commands::end_sessions(&controller.config, whose("acme", "ann"), false).await.unwrap(), 1);
    assert!(ends(&two).await);
    assert_eq!(two.get(waiting.strip_prefix(&controller.url()).unwrap()).await.0, 410, "its links end, too");

    let three = Browser::signed_in(&controller, "acme", "organization.owner").await;
    let address = controller.address();
    controller.stop().await;
    controller.start_again(address).await;
    assert!(!ends(&three).await, "a restart ends nobody's session");
    controller.stop().await;
    controller.config.jwt_secret = Some("another secret that signs tokens in tests".into());
    controller.start_again(address).await;
    assert!(ends(&three).await);
}

#[tokio::test]
async fn a_viewer_has_no_button_and_none_would_do_anything() {
    let controller = Controller::start().await;
    let id = controller.owner_of("acme").await.add_node("gpu-01").await;
    let viewer = Browser::signed_in(&controller, "acme", "organization.viewer").await;
    for page in PAGES.into_iter().chain([format!("/ui/nodes/{id}").as_str()]) {
        let (status, text) = viewer.get(page).await;
        let expected = if page == "/ui/audit" { 403 } else { 200 };
        assert_eq!(status, expected, "{page}");
        let posts = text.matches("method=\"post\"").count();
        let own = 1 + usize::from(page == "/ui/access");
        assert_eq!(posts, own, "{page}: signing out is the only form");
    }
    for (path, fields) in [
        (format!("/ui/nodes/{id}/maintenance"), vec![]),
        (format!("/ui/nodes/{id}/rename"), vec![("name", "x")]),
        (format!("/ui/nodes/{id}/token"), vec![]),
        (format!("/ui/nodes/{id}/decommission"), vec![("name", "gpu-01")]),
        ("/ui/add".to_owned(), vec![("names", "x")]),
        ("/ui/nodes/bulk".to_owned(), vec![("action", "maintenance"), ("count", "1")]),
        ("/ui/updates".to_owned(), vec![("version", "v1.1.0")]),
        ("/ui/silences".to_owned(), vec![("label", "rack=r7"), ("hours", "1"), ("reason", "x")]),
        ("/ui/delivery/replay".to_owned(), vec![]),
        ("/ui/delivery/resume".to_owned(), vec![]),
    ] {
        let (status, page) = viewer.submit("/", &path, &fields).await;
        assert!(status == 403 && page.contains("FORBIDDEN"), "{path} {status} {page}");
    }
    let stranger = Browser::signed_in(&controller, "other", "organization.owner").await;
    assert_eq!(stranger.get(&format!("/ui/nodes/{id}")).await.0, 404);
    assert!(!stranger.get("/ui/nodes").await.1.contains("gpu-01"));
}

#[tokio::test]
async fn a_nodes_page_shows_its_containers_and_what_is_wrong_with_one() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    let browser = Browser::signed_in(&controller, "acme", "organization.viewer").await;
    let path = format!("/ui/nodes/{id}");
    let page = || browser.get(&path);
    worker.send("telemetry.metrics", metrics_with(json!([]))).await;
    worker.ping().await;
    assert!(!page().await.1.contains("Containers"));
    let mut told = metrics_with(containers());
    told["leftOut"] = json!({"containers": 3});
    worker.send("telemetry.metrics", told).await;
    worker.ping().await;
    let (_, text) = page().await;
    for words in [
        "<h2>Containers</h2>",
        "shop/cart-0/web<small class=\"muted\">containerd</small>",
        "<span class=\"pill bad\">running</span><small>restarts again and again</small><small>out of memory</small>",
        "4 GiB of 8 GiB",
        "9f9f9f9f9f9f<small class=\"muted\">docker</small>",
        "<span class=\"pill \">paused</span>",
        "and 3 others",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[tokio::test]
async fn what_others_wrote_is_text_and_browsers_are_told_to_run_nothing_else() {
    let controller = Controller::start().await;
    let name = "<img src=x onerror=alert(1)>\"'&amp;";
    let id = controller.owner_of("acme").await.add_node(name).await;
    let browser = Browser::signed_in(&controller, "acme", "organization.owner").await;
    for page in
        ["/ui/nodes".to_owned(), format!("/ui/nodes/{id}"), format!("/ui/nodes?q={}", escaped("<b>\"x"))]
    {
        let (status, text) = browser.get(&page).await;
        assert!(status == 200 && !text.contains("<img") && !text.contains("<b>\"x"), "{page}: {text}");
    }
    let request =
        browser.http.get(format!("{}/", browser.base)).header(COOKIE, browser.cookie.as_ref().unwrap());
    let answer = request.send().await.unwrap();
    let policy = answer.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let page = answer.text().await.unwrap();
    for inline in [" style=", "<style", " onclick=", "javascript:", "https://"] {
        assert!(!page.contains(inline), "{inline}");
    }
}

#[tokio::test]
async fn nodes_are_added_together_or_not_at_all_and_each_has_its_command() {
    let controller = Controller::start().await;
    let browser = Browser::signed_in(&controller, "acme", "organization.owner").await;
    let (status, page) =
        browser.submit("/ui/add", "/ui/add", &[("names", "gpu-{001..003}"), ("labels", "rack=r7")]).await;
    assert_eq!(status, 200);
    assert_eq!(page.matches("sudo aio-worker install --token ").count(), 3, "{page}");
    assert!(page.contains("aio_worker_token") && page.contains("ui/add?watch=gpu-00%2A"), "{page}");
    let (status, page) = browser.submit("/ui/add", "/ui/add", &[("names", "new, gpu-002")]).await;
    assert!(status == 409 && page.contains("NAME_TAKEN"), "{page}");
    assert_eq!(controller.number("SELECT COUNT(*) FROM nodes").await, 3);
    let (status, page) = browser.get("/ui/add?watch=gpu-00%2A").await;
    assert!(status == 200 && page.contains("0 of 3 online") && page.contains("rack=r7"), "{page}");
    let owner = controller.owner_of("acme").await;
    let found = owner.get("/nodes?name=gpu-001").await.1;
    let events = owner.await_events(found["data"][0]["_id"].as_str().unwrap(), &["node.registered"]);
    assert_eq!(events.await.len(), 1);
}

#[tokio::test]
async fn what_is_done_to_a_filter_is_done_to_all_of_it_and_says_who_refused() {
    let controller = Controller::start().await;
    let browser = Browser::signed_in(&controller, "acme", "organization.owner").await;
    browser.submit("/ui/add", "/ui/add", &[("names", "gpu-{001..120}, cpu-1")]).await;
    let fields =
        [("conditions", "name=gpu-%2A"), ("action", "label"), ("label", "rack=r7"), ("count", "120")];
    let (status, page) = browser.submit("/ui/nodes", "/ui/nodes/bulk", &fields).await;
    assert!(status == 200 && page.contains("120 nodes") && page.contains("No node refused"), "{page}");
    assert_eq!(controller.number("SELECT COUNT(*) FROM nodes WHERE labels LIKE '%r7%'").await, 120);
    assert_eq!(controller.number("SELECT COUNT(*) FROM audit WHERE action = 'node.update'").await, 120);
    let fields = [("conditions", "name=gpu-%2A"), ("action", "maintenance"), ("count", "120")];
    let (_, page) = browser.submit("/ui/nodes", "/ui/nodes/bulk", &fields).await;
    assert!(page.contains("0 nodes") && page.contains("TRANSITION_REFUSED"), "{page}");
    let fields = [("conditions", "name=gpu-%2A"), ("action", "label"), ("label", "a=b"), ("count", "119")];
    let (status, page) = browser.submit("/ui/nodes", "/ui/nodes/bulk", &fields).await;
    assert!(status == 400 && page.contains("120 nodes now"), "{page}");
}

#[tokio::test]
async fn alarms_are_acknowledged_and_silenced_on_their_page() {
    let soon = std::time::Duration::from_millis(50);
    let controller = Controller::start_with(|config| config.alarm_interval = soon).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu-01").await;
    let token = controller.bearer(&owner.token_of(&id).await);
    let failed = serde_json::json!({"phase": "failed", "step": "start_service",
        "error": {"code": "SERVICE_FAILED", "message": "it did not stay up"}});
    for report in [serde_json::json!({"phase": "started", "version": "v1.0.0"}), failed] {
        assert!(token.post(&format!("/nodes/{id}/installation"), report).await.0.is_success());
    }
    let alarm = eventually("an alarm", async || {
        let listed = owner.get("/alarms").await.1;
        listed["data"][0]["id"].as_str().map(str::to_owned).ok_or_else(|| listed.to_string())
    })
    .await;
    let browser = Browser::signed_in(&controller, "acme", "organization.owner").await;
    let (_, page) = browser.get("/ui/alarms").await;
    assert!(page.contains("installation failed") && page.contains("gpu-01"), "{page}");
    let (_, overview) = browser.get("/").await;
    let counted =
        "<a href=\"ui/alarms?kind=installation_failed\"><span>installation failed</span><b>1</b></a>";
    assert!(overview.contains(counted), "{overview}");
    assert!(browser.get("/ui/alarms?kind=installation_failed").await.1.contains("gpu-01"));
    assert!(!browser.get("/ui/alarms?kind=node_offline").await.1.contains("gpu-01"));
    assert_eq!(browser.get("/ui/alarms?kind=no_kind").await.0, 400);
    let (status, _) = browser.submit("/ui/alarms", &format!("/ui/alarms/{alarm}/acknowledge"), &[]).await;
    assert_eq!(status, 303);
    assert_eq!(owner.get("/alarms").await.1["data"][0]["acknowledgedBy"], "user:ann");
    let fields = [("node", "gpu-01"), ("hours", "2"), ("reason", "it is repaired")];
    assert_eq!(browser.submit("/ui/alarms", "/ui/silences", &fields).await.0, 303);
    let silence = owner.get("/silences").await.1["data"][0].clone();
    assert_eq!((&silence["nodeId"], &silence["reason"]), (&id.into(), &"it is repaired".into()));
    let (_, page) = browser.get("/ui/alarms").await;
    assert!(page.contains("it is repaired"), "{page}");
    let (_, one) = browser.get(&format!("/ui/alarms/{alarm}")).await;
    for words in ["raised</th><td>controller", "acknowledged</th><td>user:ann", "silenced</th><td>user:ann"] {
        assert!(one.contains(words), "{words}: {one}");
    }
    let end = format!("/ui/silences/{}/end", silence["id"].as_str().unwrap());
    assert_eq!(browser.submit("/ui/alarms", &end, &[]).await.0, 303);
    assert_eq!(owner.get("/silences").await.1["data"].as_array().unwrap().len(), 0);
    let both = [("node", "gpu-01"), ("label", "rack=r7"), ("hours", "2"), ("reason", "x")];
    assert_eq!(browser.submit("/ui/alarms", "/ui/silences", &both).await.0, 400);
}

#[tokio::test]
async fn a_webhook_is_added_tested_and_removed_on_its_page_and_its_secret_is_shown_once() {
    let endpoint = crate::peers::FakeNoti::start(&[]).await;
    let controller = Controller::start_with(|config| {
        config.webhook_networks = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let owner = controller.owner_of("acme").await;
    let browser = Browser::signed_in(&controller, "acme", "organization.owner").await;
    let url = format!("{}/events?<b>", endpoint.url());
    let fields = [("url", url.as_str()), ("kind", "node.connected"), ("description", "<i>pager</i>")];
    let (status, page) = browser.submit("/ui/webhooks", "/ui/webhooks", &fields).await;
    assert!(status == 200 && page.contains("whsec_"), "{status} {page}");
    let id = owner.get("/webhooks").await.1["data"][0]["id"].as_str().unwrap().to_owned();
    let shown = format!("/ui/webhooks/{id}");
    for path in ["/ui/webhooks", &shown] {
        let (_, page) = browser.get(path).await;
        assert!(page.contains("node.connected") && page.contains("pager"), "{page}");
        assert!(!page.contains("whsec_") && !page.contains("<i>") && !page.contains("?<b>"), "{page}");
    }
    let (status, to) = browser.submit(&shown, &format!("{shown}/test"), &[]).await;
    assert!(status == 303 && to.contains("delivered"), "{to}");
    assert_eq!(endpoint.posts().len(), 1);
    let (_, page) = browser.get(&shown).await;
    assert!(page.contains("webhook.test") && page.contains("it answered 202"), "{page}");
    let viewer = Browser::signed_in(&controller, "acme", "organization.viewer").await;
    assert_eq!(viewer.get("/ui/webhooks").await.0, 403);
    let (_, page) = browser.submit(&shown, &format!("{shown}/rotate"), &[]).await;
    assert!(page.contains("whsec_"), "{page}");
    assert_eq!(browser.submit(&shown, &format!("{shown}/remove"), &[]).await.0, 303);
    assert_eq!(browser.get(&shown).await.0, 404);
}

#[tokio::test]
async fn the_overview_counts_gpus_and_measures_how_long_events_take_and_how_long_nodes_are_there() {
    let controller = Controller::start().await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let browser = Browser::signed_in(&controller, "acme", "organization.viewer").await;
    let (_, page) = browser.get("/").await;
    assert!(page.contains("0 GPUs in all"), "{page}");
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &owner.token_of(&id).await).await;
    let gpus = json!([{"deviceId": "0", "health": "ok"}, {"deviceId": "1", "health": "ok"}]);
    worker.send("telemetry.metrics", crate::telemetry::metrics(gpus)).await;
    worker.ping().await;
    owner.await_events(&id, &["node.registered", "node.installation_started", "node.connected"]).await;
    let (_, page) = browser.get("/").await;
    assert!(page.contains("2 GPUs in all, of "), "{page}");
    // Half a day online, and a moment away.
    controller.sql("UPDATE transitions SET at = at - 43200000 WHERE to_status IN ('pending', 'installing', 'online')").await;
    worker.send("node.disconnecting", json!({"reason": "shutdown"})).await;
    worker.ping().await;
    owner.await_status(&id, "offline").await;
    let (_, page) = browser.get("/").await;
    let measure = |name: &str| {
        let (_, rest) = page.split_once(&format!("<span>{name}</span><b>")).unwrap();
        let (value, rest) = rest.split_once("</b>").unwrap();
        (value.to_owned(), rest.split_once("</small>").unwrap().0.contains("target met"))
    };
    let (value, met) = measure("Time to deliver an event");
    assert!(met && value.ends_with(" ms"), "{value}");
    let (value, met) = measure("Uptime of nodes");
    assert!(met && (value.starts_with("99.9") || value == "100 %"), "{value}");
}
