//! What others have reported of several processes on one PostgreSQL server, tried on ours.

use std::process::{Child, Command, Stdio};

use super::*;
use crate::balancer::free_port;

/// PgBouncer in front of a server, ended with the test.
struct Pooler {
    process: Child,
    port: u16,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Pooler {
    fn before(cluster: &Cluster, mode: &str) -> Self {
        let (port, server) = (free_port(), reqwest::Url::parse(&cluster.tcp_url("postgres")).unwrap());
        let text = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} user=aio password=password\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {mode}\ndefault_pool_size = 40\nignore_startup_parameters = extra_float_digits\n",
            server.port().unwrap()
        );
        let config = cluster.own_file(&format!("pgbouncer-{mode}.ini"), &text).unwrap();
        // It refuses to run as root.
        let mut pooler = if rustix::process::geteuid().is_root() {
            let mut pooler = Command::new("setpriv");
            pooler.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--", "pgbouncer"]);
            pooler
        } else {
            Command::new("pgbouncer")
        };
        let process = pooler.arg("-q").arg(config).stderr(Stdio::null()).current_dir("/").spawn().unwrap();
        Self { process, port }
    }

    async fn url(&self) -> String {
        eventually("the pooler listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", self.port))
                .await
                .map(drop)
                .map_err(|it| it.to_string())
        })
        .await;
        format!("postgres://aio:password@127.0.0.1:{}/postgres", self.port)
    }
}

/// marten#3988: behind PgBouncer with `pool_mode = transaction`, every process had the lock of the one that
/// leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_gives_sessions_away_is_refused_and_one_that_keeps_them_serves_several() {
    harness::install_provider();
    let cluster = Cluster::start("password").unwrap();
    let giving = Pooler::before(&cluster, "transaction");
    let data = tempfile::tempdir().unwrap();
    let mut config = Config::new(data.path().join("data"));
    config.listen = ([127, 0, 0, 1], 0).into();
    config.public_url = Some("http://127.0.0.1:9".parse().unwrap());
    config.database_url = Some(giving.url().await.into());
    for shared in [false, true] {
        let refused = Server::start(Config { shared, ..config.clone() }).await.map(drop).unwrap_err();
        assert_eq!(refused.code().as_str(), "DATABASE_UNSUPPORTED", "shared {shared}: {refused:?}");
    }
    let keeping = Pooler::before(&cluster, "session");
    let url = keeping.url().await;
    let (one, two) = (member(&url, |_| {}).await, member(&url, |_| {}).await);
    let owner = one.owner_of("acme").await;
    leader(&operator(&two).await, 2).await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let _worker = Worker::welcomed(&two.gateway(), &id, &token).await;
    owner.await_events(&id, &FIRST).await;
}

/// wolverine#2602: a leader whose session the server had ended went on to lead beside the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_the_server_ends_again_and_again_leave_one_leader_and_each_event_told_once() {
    const END: &str = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
                       WHERE application_name = 'controller-stub'";
    let cluster = Cluster::start("password").unwrap();
    let url = cluster.url();
    let (one, two) = (member(&url, |_| {}).await, member(&url, |_| {}).await);
    let (at_one, at_two) = (one.owner_of("acme").await, two.owner_of("acme").await);
    let operator = operator(&two).await;
    let led = leader(&operator, 2).await;
    let id = at_one.add_node("gpu").await;
    let token = at_one.token_of(&id).await;
    let mut worker = Worker::welcomed(&two.gateway(), &id, &token).await;
    let mut types = FIRST.to_vec();
    for round in 0..6 {
        eventually("sessions are there to be ended", async || {
            let ended: u32 = cluster.sql("postgres", END).unwrap().parse().unwrap();
            if ended >= 3 { Ok(()) } else { Err(format!("{ended} in round {round}")) }
        })
        .await;
        let (path, told) = [("maintenance", "node.maintenance_mode"), ("resume", "node.resumed")][round % 2];
        let at = if round % 3 == 0 { &at_one } else { &at_two };
        eventually("a change is taken again", async || {
            let (status, answer) = at.post(&format!("/nodes/{id}/{path}"), json!({})).await;
            if status == 200 { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
        types.push(told);
    }
    worker.heartbeat(1).await;
    worker.ping().await;
    at_one.await_events(&id, &types).await;
    assert_eq!(leader(&operator, 2).await, led, "nobody is dead, so whoever leads goes on");
}

/// graphile/worker#387: what the server rolls back for the sake of another transaction (a deadlock, a
/// serialization failure) was lost, or failed for whoever asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlocks_and_serialization_failures_are_tried_again_and_nothing_is_told_twice() {
    let cluster = Cluster::start("password").unwrap();
    let url = cluster.url();
    let (one, two) = (member(&url, |_| {}).await, member(&url, |_| {}).await);
    let (at_one, at_two) = (one.owner_of("acme").await, two.owner_of("acme").await);
    let id = at_one.add_node("gpu").await;
    let token = at_one.token_of(&id).await;
    let mut worker = Worker::welcomed(&two.gateway(), &id, &token).await;
    let mut types = FIRST.to_vec();
    at_one.await_events(&id, &types).await;
    // A sequence is not rolled back: of three changes of a node, two fail, each with another code.
    let collide = "CREATE SEQUENCE collisions; CREATE FUNCTION collide() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        CASE nextval('collisions') % 3 WHEN 1 THEN RAISE EXCEPTION USING ERRCODE = '40001'; \
        WHEN 2 THEN RAISE EXCEPTION USING ERRCODE = '40P01'; ELSE RETURN NEW; END CASE; END $$; \
        CREATE TRIGGER collide BEFORE UPDATE ON nodes FOR EACH ROW EXECUTE FUNCTION collide()";
    cluster.sql("postgres", collide).unwrap();
    for round in 0..6 {
        let (path, told) = [("maintenance", "node.maintenance_mode"), ("resume", "node.resumed")][round % 2];
        let at = if round % 3 == 0 { &at_one } else { &at_two };
        let (status, answer) = at.post(&format!("/nodes/{id}/{path}"), json!({})).await;
        assert_eq!(status, 200, "{answer}");
        types.push(told);
    }
    at_one.await_events(&id, &types).await;
    let collisions: u32 =
        cluster.sql("postgres", "SELECT last_value FROM collisions").unwrap().parse().unwrap();
    assert!(collisions >= 18, "{collisions}");
    worker.heartbeat(1).await;
    worker.ping().await;
    let (_, trail) = at_one.get("/audit?limit=100").await;
    let done = |it: &&Value| (&it["action"], &it["outcome"]) == (&json!("node.maintenance"), &json!("done"));
    assert_eq!(trail["data"].as_array().unwrap().iter().filter(done).count(), 3, "{trail}");
}
