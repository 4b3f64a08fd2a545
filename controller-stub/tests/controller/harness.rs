//! A controller on a folder of its own, users who ask it, and waiting for conditions.

use std::{future::Future, path::PathBuf, time::Duration};

use controller_stub::{
    commands::{self, For},
    config::Config,
    serve::Server,
};
use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const SECRET: &str = "a secret that signs tokens in tests, long enough";
pub(crate) const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(crate) const SERVICE_TOKEN: &str = "the service token of NOTI in tests";

/// A controller that can be stopped and started again on the same folder.
pub(crate) struct Controller {
    pub config: Config,
    server: Option<Server>,
    _folder: TempDir,
}

/// Somebody with a token.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Controller {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        install_provider();
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::new(folder.path().join("data"));
        config.listen = ([127, 0, 0, 1], 0).into();
        config.releases = Some(folder.path().join("releases"));
        config.jwt_secret = Some(SECRET.into());
        config.noti_webhook_secret = Some(WEBHOOK_SECRET.into());
        config.noti_service_token = Some(SERVICE_TOKEN.into());
        std::fs::create_dir_all(folder.path().join("releases/v1.0.0")).unwrap();
        for (name, content) in [("linux-amd64", "the daemon"), ("aio-installer-linux-amd64", "the installer")]
        {
            std::fs::write(folder.path().join("releases/v1.0.0").join(name), content).unwrap();
        }
        if let Ok(server) = std::env::var("AIO_TEST_POSTGRES") {
            config.database_url = Some(schema_on(&server).await.into());
        }
        change(&mut config);
        let server = Server::start(config.clone()).await.unwrap();
        Self { config, server: Some(server), _folder: folder }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("the controller runs")
    }

    pub(crate) fn url(&self) -> String {
        self.server().url().to_owned()
    }

    pub(crate) fn gateway(&self) -> String {
        format!("ws://{}/ws/node", self.server().address())
    }

    pub(crate) fn release(&self, name: &str) -> PathBuf {
        self.config.releases.as_ref().unwrap().join("v1.0.0").join(name)
    }

    /// Puts an index of releases into the folder, and what goes for its signature: v1.0.0, v1.1.0, and
    /// v2.0.0, which is reached from v1.1.0 on.
    pub(crate) fn write_index(&self) {
        let release = |byte: &str, oldest: Option<&str>| {
            let mut release = json!({ "manifestSha256": format!("sha256:{}", byte.repeat(64)) });
            if let Some(oldest) = oldest {
                release["oldestFrom"] = json!(oldest);
            }
            release
        };
        let index = json!({
            "serial": 7, "issuedAt": "2025-12-11T12:00:00.000Z", "expiresAt": "2099-01-01T00:00:00.000Z", "floor": "v1.0.0",
            "releases": {"v1.0.0": release("a", None), "v1.1.0": release("b", None), "v2.0.0": release("c", Some("v1.1.0"))}});
        let folder = self.config.releases.as_ref().unwrap();
        std::fs::write(folder.join("index.json"), index.to_string()).unwrap();
        std::fs::write(folder.join("index.json.minisig"), "its signature").unwrap();
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
    }

    /// Begins to stop it; what is returned hurries it and waits for its end.
    pub(crate) fn begin_to_stop(&mut self) -> impl AsyncFnOnce() {
        let server = self.server.take().expect("the controller runs");
        let haste = server.haste();
        let stopping = tokio::spawn(server.shutdown());
        async move || {
            haste.cancel();
            stopping.await.unwrap();
        }
    }

    /// Starts it again, on the same address.
    pub(crate) async fn start_again(&mut self, address: std::net::SocketAddr) {
        self.config.listen = address;
        self.server = Some(Server::start(self.config.clone()).await.unwrap());
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.server().address()
    }

    /// An owner of the organisation `org`.
    pub(crate) async fn owner_of(&self, org: &str) -> Client {
        self.user(org, "organization.owner").await
    }

    pub(crate) async fn user(&self, org: &str, role: &str) -> Client {
        let whose = For { org: Some(org.parse().unwrap()), user: Some("someone".parse().unwrap()) };
        let token = commands::user_token(&self.config, whose, vec![role.into()], 3600).await.unwrap();
        self.bearer(&token)
    }

    pub(crate) fn bearer(&self, token: &str) -> Client {
        Client { token: Some(token.to_owned()), ..self.nobody() }
    }

    pub(crate) fn nobody(&self) -> Client {
        Client { http: http(), base: self.url(), token: None }
    }

    /// What a query of one text finds.
    pub(crate) async fn text_in_database(&self, query: &'static str) -> String {
        let pool = self.database().await;
        let text = sqlx::query_scalar(query).fetch_one(&pool).await.unwrap();
        pool.close().await;
        text
    }

    async fn database(&self) -> sqlx::AnyPool {
        let url = match &self.config.database_url {
            Some(url) => url.expose_secret().to_owned(),
            None => format!("sqlite://{}/controller.db", self.config.data_dir.display()),
        };
        sqlx::AnyPool::connect(&url).await.unwrap()
    }

    /// `lastSeenAt` as another process would find it.
    pub(crate) async fn last_seen_in_database(&self, node: &str) -> i64 {
        let pool = self.database().await;
        let seen = sqlx::query_scalar(
            "SELECT COALESCE(at, last_seen_at) FROM nodes LEFT JOIN sightings ON node_id = id WHERE id = $1",
        )
        .bind(node.to_owned());
        let seen = seen.fetch_one(&pool).await.unwrap();
        pool.close().await;
        seen
    }

    /// Changes the database as no address of the API can yet.
    pub(crate) async fn sql(&self, statement: &'static str) {
        let pool = self.database().await;
        sqlx::query(statement).execute(&pool).await.unwrap();
        pool.close().await;
    }

    /// Reads a number from the database.
    pub(crate) async fn number(&self, query: &'static str) -> i64 {
        let pool = self.database().await;
        let row = sqlx::query(query).fetch_one(&pool).await.unwrap();
        pool.close().await;
        sqlx::Row::get(&row, 0)
    }
}

/// The address of a new schema on a PostgreSQL server.
pub(crate) async fn schema_on(server: &str) -> String {
    sqlx::any::install_default_drivers();
    let pool = sqlx::AnyPool::connect(server).await.unwrap();
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).execute(&pool).await.unwrap();
    pool.close().await;
    let mut url: reqwest::Url = server.parse().unwrap();
    url.query_pairs_mut().append_pair("options", &format!("-csearch_path={schema}"));
    url.into()
}

impl Client {
    /// Somebody with a token, at any controller.
    pub(crate) fn at(base: &str, token: &str) -> Self {
        Self { http: http(), base: base.to_owned(), token: Some(token.to_owned()) }
    }

    /// The token that it shows.
    pub(crate) fn bearer_token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    /// The same, at another address of the controller.
    pub(crate) fn through_address(&self, base: &str) -> Self {
        Self { http: self.http.clone(), base: base.to_owned(), token: self.token.clone() }
    }

    /// The same, by another HTTP client.
    pub(crate) fn through(self, http: reqwest::Client) -> Self {
        Self { http, ..self }
    }

    /// Somebody else at the same controller.
    pub(crate) fn bearer_of(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), http: self.http.clone(), base: self.base.clone() }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        answer(self.request(Method::POST, path).json(&body)).await
    }

    /// Registers a node and says its id.
    pub(crate) async fn add_node(&self, name: &str) -> String {
        let (status, node) = self.post("/nodes", json!({ "name": name, "role": ["worker"] })).await;
        assert_eq!(status, 201, "{node}");
        node["_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn token_of(&self, node: &str) -> String {
        let (status, answer) = self.post(&format!("/nodes/{node}/token"), json!({})).await;
        assert_eq!(status, 201, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn node(&self, id: &str) -> Value {
        let (status, node) = self.get(&format!("/nodes/{id}")).await;
        assert_eq!(status, 200, "{node}");
        node
    }

    pub(crate) async fn events(&self, node: &str) -> Vec<Value> {
        let (status, events) = self.get(&format!("/events?nodeId={node}")).await;
        assert_eq!(status, 200, "{events}");
        events["data"].as_array().unwrap().clone()
    }

    /// Waits until NOTI has this node's events of these types, in this order, and no others.
    pub(crate) async fn await_events(&self, node: &str, types: &[&str]) -> Vec<Value> {
        eventually(&format!("events {types:?}"), async || {
            let events = self.events(node).await;
            let seen: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
            if seen == types { Ok(events) } else { Err(format!("{seen:?}")) }
        })
        .await
    }

    pub(crate) async fn await_status(&self, node: &str, status: &str) -> Value {
        eventually(&format!("status {status}"), async || {
            let node = self.node(node).await;
            if node["status"] == status { Ok(node) } else { Err(node.to_string()) }
        })
        .await
    }

    pub(crate) async fn await_connected(&self, node: &str, connected: bool) -> Value {
        eventually(&format!("websocketConnected {connected}"), async || {
            let node = self.node(node).await;
            if node["websocketConnected"] == connected { Ok(node) } else { Err(node.to_string()) }
        })
        .await
    }
}

pub(crate) fn install_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A client that goes through no proxy.
pub(crate) fn http() -> reqwest::Client {
    install_provider();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Status and JSON body of an answer.
pub(crate) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text:?} is not JSON")))
}

/// Asserts that an answer is an error in AIWM's form, with this status and code, and says its message.
pub(crate) fn refusal((status, body): (StatusCode, Value), expected: u16, code: &str) -> String {
    assert_eq!((status.as_u16(), body["code"].as_str()), (expected, Some(code)), "{body}");
    assert_eq!(body["statusCode"], expected, "{body}");
    assert_eq!(body["error"], status.canonical_reason().unwrap(), "{body}");
    body["message"].as_str().unwrap().to_owned()
}

/// Waits for a condition, and says what was seen last when it does not come about.
pub(crate) async fn eventually<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    const PATIENCE: Duration = Duration::from_secs(20);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if tokio::time::Instant::now() > deadline => {
                panic!("{what} did not come about; last: {seen}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
