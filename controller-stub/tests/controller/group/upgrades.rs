//! Controllers of two versions on one database, for the time of an upgrade.

use super::*;

/// What a later version adds to the tables.
const EXPAND: &str = "ALTER TABLE nodes ADD COLUMN later TEXT; CREATE TABLE later (id BIGINT); \
    INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
    VALUES (9000, 'later', true, '\\x00', 0)";

/// infra-controller#6608: once a later version had added a column, every statement that an older one had
/// prepared failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_later_version_an_older_one_serves_and_starts_until_the_tables_are_no_longer_for_it() {
    let cluster = Cluster::start("password").unwrap();
    let url = cluster.url();
    let running = member(&url, |_| {}).await;
    let owner = running.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    cluster.sql("postgres", EXPAND).unwrap();
    let mut started = member(&url, |_| {}).await;
    let operator = operator(&running).await;
    leader(&operator, 2).await;
    let mut types = FIRST.to_vec();
    for (place, told) in [&started, &running].into_iter().zip(["node.maintenance_mode", "node.resumed"]) {
        let mut worker = Worker::welcomed(&place.gateway(), &id, &token).await;
        worker.heartbeat(1).await;
        worker.ping().await;
        let at = place.owner_of("acme").await;
        let path = if told == "node.resumed" { "resume" } else { "maintenance" };
        assert_eq!(at.post(&format!("/nodes/{id}/{path}"), json!({})).await.0, 200);
        types.push(told);
    }
    owner.await_events(&id, &types).await;
    // The later version takes away what only the older one needs.
    cluster.sql("postgres", "UPDATE oldest_program SET migration = 9000").unwrap();
    let config = started.config.clone();
    started.stop().await;
    let refused = Server::start(config).await.map(drop).unwrap_err();
    assert_eq!(refused.code().as_str(), "DATABASE_NEWER");
    assert_eq!(
        owner.post(&format!("/nodes/{id}/maintenance"), json!({})).await.0,
        200,
        "one that runs goes on"
    );
}
