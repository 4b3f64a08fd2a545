//! A controller on PostgreSQL: what is refused and with which code, what an outage does, and that all the
//! rest is as on SQLite. The other tests run on PostgreSQL, too, where `AIO_TEST_POSTGRES` names a server.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use controller_stub::{
    commands::{self, For},
    config::Config,
    serve::Server,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;

use crate::{
    balancer::{Balancer, free_port},
    cluster::Cluster,
    harness::{self, Client, Controller, eventually, refusal},
    peers::Worker,
    program::{self, Served, run, serve_with},
};

const PASSWORD: &str = "a password: with % and / and @";

/// The same in an address.
const ENCODED: &str = "a%20password%3A%20with%20%25%20and%20%2F%20and%20%40";

/// A server with TLS, a database `aiwm`, and the certificate that its own is signed with.
fn encrypted() -> (Cluster, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(PASSWORD).unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let pair =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let (certificate, key) = (
        cluster.own_file("server.pem", &pair.pem()).unwrap(),
        cluster.own_file("server.key", &key.serialize_pem()).unwrap(),
    );
    let trusted = folder.path().join("authority.pem");
    fs::write(&trusted, authority.pem()).unwrap();
    cluster.stop("fast").unwrap();
    cluster.set("ssl=on");
    cluster.set(format!("ssl_cert_file={}", certificate.display()));
    cluster.set(format!("ssl_key_file={}", key.display()));
    cluster.run().unwrap();
    cluster.sql("postgres", "CREATE DATABASE aiwm").unwrap();
    (cluster, trusted, folder)
}

fn secret_file(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("password");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// The code that a start ends with.
async fn code(url: String, change: impl FnOnce(&mut Config)) -> &'static str {
    let data = tempfile::tempdir().unwrap();
    let mut config = Config::new(data.path());
    config.listen = ([127, 0, 0, 1], 0).into();
    config.database_url = Some(url.into());
    change(&mut config);
    let began = Instant::now();
    let checked = Server::check(&config).await.unwrap_err().code();
    let started = Server::start(config).await.map(drop).unwrap_err().code();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(checked, started);
    started.as_str()
}

#[tokio::test]
async fn a_controller_serves_over_tls_with_its_password_from_a_file_and_takes_up_a_new_one() {
    let (cluster, trusted, folder) = encrypted();
    let password = secret_file(folder.path(), &format!("{PASSWORD}\n"));
    let url = format!("{}?sslmode=verify-full&sslrootcert={}", cluster.tcp_url("aiwm"), trusted.display());
    let mut controller = Controller::start_with(|config| {
        config.database_url = Some(url.into());
        config.database_password_file = Some(password.clone());
    })
    .await;
    let owner = controller.owner_of("acme").await;
    // An order that a collation of a language would have otherwise.
    for name in ["gpu-10", "gpu-2", "GPU-3", "gpu_1"] {
        owner.add_node(name).await;
    }
    let (_, list) = owner.get("/nodes?sort=name").await;
    let names: Vec<_> =
        list["data"].as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["GPU-3", "gpu-2", "gpu-10", "gpu_1"]);
    let encrypted = "SELECT count(*) > 0 AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name = 'controller-stub'";
    assert_eq!(cluster.sql("postgres", encrypted).unwrap(), "t");

    // A password is changed while it runs: what connects from then on takes the new one.
    cluster.sql("postgres", "ALTER ROLE aio PASSWORD 'another'").unwrap();
    fs::write(&password, "another").unwrap();
    let ended =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'controller-stub'";
    cluster.sql("postgres", ended).unwrap();
    eventually("it works with the new password", async || {
        let (status, answer) = owner.post("/nodes", json!({"name": uuid::Uuid::new_v4().to_string()})).await;
        if status == 201 { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
    let address = controller.address();
    controller.stop().await;
    controller.start_again(address).await;
    assert_eq!(controller.owner_of("acme").await.get("/nodes").await.0, 200);
}

#[tokio::test]
async fn each_way_in_which_a_server_cannot_be_used_has_its_code_at_once() {
    harness::install_provider();
    let (cluster, trusted, folder) = encrypted();
    let password = secret_file(folder.path(), PASSWORD);
    let tcp = |database: &str, more: &str| {
        let url = cluster.tcp_url(database).replace("aio@", &format!("aio:{ENCODED}@"));
        format!("{url}?{more}")
    };
    let sql = |database: &str, statement: &str| cluster.sql(database, statement).unwrap();
    assert_eq!(code("postgres://aio@localhost:1/aiwm".into(), |_| {}).await, "DATABASE_UNREACHABLE");
    assert_eq!(code(tcp("aiwm", "").replace("password", "passw0rd"), |_| {}).await, "DATABASE_REFUSED");
    assert_eq!(code(tcp("nowhere", ""), |_| {}).await, "DATABASE_REFUSED");
    // A certificate of an authority that nobody has named.
    assert_eq!(code(tcp("aiwm", "sslmode=verify-full"), |_| {}).await, "DATABASE_REFUSED");
    // One of another name.
    let by_address = tcp("aiwm", &format!("sslmode=verify-full&sslrootcert={}", trusted.display()));
    assert_eq!(code(by_address.replace("localhost", "127.0.0.1"), |_| {}).await, "DATABASE_REFUSED");
    let afar = "postgres://aio@db.invalid/aiwm?sslmode=prefer".to_owned();
    assert_eq!(code(afar, |_| {}).await, "INSECURE_URL");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    let exposed = |config: &mut Config| config.database_password_file = Some(password);
    assert_eq!(code(cluster.tcp_url("aiwm"), exposed).await, "SECRET_EXPOSED");

    sql("postgres", "ALTER DATABASE aiwm SET default_transaction_read_only = on");
    assert_eq!(code(tcp("aiwm", ""), |_| {}).await, "DATABASE_READ_ONLY");
    sql("postgres", "ALTER DATABASE aiwm RESET default_transaction_read_only");
    sql(
        "postgres",
        "CREATE DATABASE latin ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'",
    );
    assert_eq!(code(tcp("latin", ""), |_| {}).await, "DATABASE_UNSUPPORTED");
    sql("postgres", "CREATE DATABASE other");
    sql("other", "CREATE TABLE bookmarks (url TEXT)");
    assert_eq!(code(tcp("other", ""), |_| {}).await, "DATABASE_DAMAGED");

    let data = tempfile::tempdir().unwrap();
    let mut config = Config::new(data.path());
    config.listen = ([127, 0, 0, 1], 0).into();
    config.database_url = Some(tcp("aiwm", "").into());
    let server = Server::start(config).await.unwrap();
    assert_eq!(code_of_second(tcp("aiwm", "")).await, "DATABASE_IN_USE");
    server.shutdown().await;
    sql(
        "aiwm",
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9000, 'later', true, '', 0); \
         UPDATE oldest_program SET migration = 9000",
    );
    assert_eq!(code(tcp("aiwm", ""), |_| {}).await, "DATABASE_NEWER");
    sql("aiwm", "DELETE FROM _sqlx_migrations WHERE version = 9000; DROP TABLE tokens");
    assert_eq!(code(tcp("aiwm", ""), |_| {}).await, "DATABASE_DAMAGED");
}

/// The code of a second server; a check beside the first one succeeds.
async fn code_of_second(url: String) -> &'static str {
    let data = tempfile::tempdir().unwrap();
    let mut config = Config::new(data.path());
    config.listen = ([127, 0, 0, 1], 0).into();
    config.database_url = Some(url.into());
    Server::check(&config).await.unwrap();
    Server::start(config).await.map(drop).unwrap_err().code().as_str()
}

#[tokio::test]
async fn while_the_server_is_away_changes_are_503_and_workers_stay_and_afterwards_all_goes_on() {
    let mut cluster = Cluster::start(PASSWORD).unwrap();
    let url = cluster.url();
    let controller = Controller::start_with(|config| config.database_url = Some(url.into())).await;
    let owner = controller.owner_of("acme").await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let mut worker = Worker::welcomed(&controller.gateway(), &id, &token).await;
    owner.await_events(&id, &["node.registered", "node.installation_started", "node.connected"]).await;
    for how in ["immediate", "fast"] {
        cluster.stop(how).unwrap();
        for path in ["/nodes", "/events"] {
            refusal(owner.get(path).await, 503, "DATABASE_UNREACHABLE");
        }
        refusal(owner.post("/nodes", json!({"name": "other"})).await, 503, "DATABASE_UNREACHABLE");
        // Once it is known to be away, nobody waits.
        let began = Instant::now();
        refusal(owner.get(&format!("/nodes/{id}")).await, 503, "DATABASE_UNREACHABLE");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        worker.heartbeat(1).await;
        cluster.run().unwrap();
        eventually("changes are taken again", async || {
            let name = uuid::Uuid::new_v4().to_string();
            let (status, answer) = owner.post("/nodes", json!({ "name": name })).await;
            if status == 201 { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
        // The worker was there all the while, and nobody says otherwise.
        worker.ping().await;
        eventually("the node is online and connected", async || {
            let (_, node) = owner.get(&format!("/nodes/{id}")).await;
            let is_there = node["status"] == "online" && node["websocketConnected"] == true;
            if is_there { Ok(()) } else { Err(node.to_string()) }
        })
        .await;
        eventually("lists are answered again", async || {
            let (status, answer) = owner.get("/events").await;
            if status == 200 { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
        owner.await_events(&id, &["node.registered", "node.installation_started", "node.connected"]).await;
    }
    let (status, _) = owner.post(&format!("/nodes/{id}/maintenance"), json!({})).await;
    assert_eq!(status, 200);
    let types = ["node.registered", "node.installation_started", "node.connected", "node.maintenance_mode"];
    owner.await_events(&id, &types).await;
}

#[tokio::test]
async fn a_server_that_becomes_read_only_says_so_and_another_that_holds_the_lock_is_waited_for_once() {
    let cluster = Cluster::start(PASSWORD).unwrap();
    let url = cluster.url();
    let controller = Controller::start_with(|config| config.database_url = Some(url.clone().into())).await;
    let owner = controller.owner_of("acme").await;
    sqlx::any::install_default_drivers();
    let other = sqlx::AnyPool::connect(&url).await.unwrap();
    let hold = "BEGIN; SELECT pg_advisory_xact_lock(1095323468, hashtext(current_schema()))";
    let held = other.begin_with(hold).await.unwrap();
    let began = Instant::now();
    refusal(owner.post("/nodes", json!({"name": "gpu"})).await, 503, "DATABASE_BUSY");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(owner.get("/nodes").await.0, 200, "who only reads does not wait");
    held.rollback().await.unwrap();
    owner.add_node("gpu").await;

    let only = "ALTER SYSTEM SET default_transaction_read_only = on";
    cluster.sql("postgres", only).unwrap();
    cluster.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    eventually("it is read-only", async || {
        let (status, answer) = owner.post("/nodes", json!({"name": uuid::Uuid::new_v4().to_string()})).await;
        if (status.as_u16(), &answer["code"]) == (503, &json!("DATABASE_READ_ONLY")) {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    })
    .await;
}

/// A tablespace of 24 MiB, in which a folder can be filled.
struct SmallDisk(tempfile::TempDir);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_of_the_server_is_told_and_everything_works_again_once_there_is_room() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root can mount a small file system");
        return;
    }
    let disk = SmallDisk(tempfile::tempdir().unwrap());
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=24m,mode=0777", "tmpfs"]).arg(disk.0.path());
    assert!(mount.status().unwrap().success());
    fs::set_permissions(&disk.0, fs::Permissions::from_mode(0o777)).unwrap();
    let cluster = Cluster::start(PASSWORD).unwrap();
    let space = cluster.own_folder(&disk.0.path().join("space")).unwrap();
    cluster.sql("postgres", &format!("CREATE TABLESPACE small LOCATION '{}'", space.display())).unwrap();
    cluster.sql("postgres", "CREATE DATABASE aiwm TABLESPACE small").unwrap();
    let url = cluster.url().replace("/postgres?", "/aiwm?");
    let controller = Controller::start_with(|config| config.database_url = Some(url.into())).await;
    let owner = controller.owner_of("acme").await;
    let ballast = disk.0.path().join("ballast");
    // Ends with an error, which is what is wanted.
    let _ = fs::write(&ballast, vec![1; 64 << 20]);
    eventually("the disk is full", async || {
        let refused = owner.post("/nodes", json!({"name": uuid::Uuid::new_v4().to_string()})).await;
        if refused.1["code"] == "DISK_FULL" { Ok(()) } else { Err(refused.1.to_string()) }
    })
    .await;
    fs::remove_file(&ballast).unwrap();
    eventually("changes are taken again", async || {
        let (status, answer) = owner.post("/nodes", json!({"name": "other"})).await;
        if status == 201 { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn commands_work_beside_the_server_and_the_program_never_tells_a_password() {
    let cluster = Cluster::start(PASSWORD).unwrap();
    let data = tempfile::tempdir().unwrap();
    let config = data.path().join("config.toml");
    let url = cluster.url().replace("aio@", "aio:hunter2@");
    fs::write(&config, format!("database_url = \"{url}\"\n")).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let flags = ["--config", config.to_str().unwrap()];
    let exposed = run(&[&["serve", "--check"], &flags[..]].concat(), data.path());
    let told = String::from_utf8_lossy(&exposed.stderr);
    assert!(!told.contains("hunter2") && !exposed.status.success(), "{told}");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    let served = serve_with(&flags, data.path());
    for command in [&["node", "add", "gpu-1"][..], &["node", "list"], &["audit"]] {
        let output = run(&[command, &flags].concat(), data.path());
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !told.contains("hunter2"), "{command:?}: {told}");
    }
    drop(served);
    cluster.sql("postgres", "DROP TABLE tokens").unwrap();
    let output = run(&[&["serve"], &flags[..]].concat(), data.path());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("error[DATABASE_DAMAGED]: ") && !told.contains("hunter2"), "{told}");
}

/// The configuration of a controller that stands by for others on this database.
fn standing_by(folder: &Path, url: &str) -> PathBuf {
    let config = folder.join("config.toml");
    let text = format!(
        "database_url = \"{url}\"\nstandby = true\npublic_url = \"http://127.0.0.1:9\"\n\
         jwt_secret = \"{}\"\nnoti_webhook_secret = \"{}\"\nnoti_service_token = \"{}\"\n",
        harness::SECRET,
        harness::WEBHOOK_SECRET,
        harness::SERVICE_TOKEN
    );
    fs::write(&config, text).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    config
}

/// The sessions that wait for their turn to serve.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_terminate_backend%' AND pid <> pg_backend_pid()";

/// Starts a controller that stands by, and gives it once it serves.
fn stand_by(url: &str) -> tokio::task::JoinHandle<(Served, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    let config = standing_by(folder.path(), url);
    tokio::task::spawn_blocking(move || {
        let served = serve_with(&["--config", config.to_str().unwrap()], &folder.path().join("data"));
        (served, folder)
    })
}

/// Nodes, their token and their organisation's owner, as the first of the controllers made them.
async fn owner_at(served: &Served, folder: &Path, url: &str) -> Client {
    let mut config = Config::new(folder.join("data"));
    config.database_url = Some(url.into());
    config.jwt_secret = Some(harness::SECRET.into());
    let whose = For { org: Some("acme".parse().unwrap()), user: Some("someone".parse().unwrap()) };
    let token = commands::user_token(&config, whose, vec!["organization.owner".into()], 3600).await.unwrap();
    Client::at(&served.url, &token)
}

fn gateway(served: &Served) -> String {
    format!("{}/ws/node", served.url.replace("http:", "ws:"))
}

fn signal(served: &Served, signal: rustix::process::Signal) {
    let process = rustix::process::Pid::from_child(&served.child);
    rustix::process::kill_process(process, signal).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_serves_within_seconds_after_the_controller_is_killed_and_nothing_is_lost() {
    let cluster = Cluster::start(PASSWORD).unwrap();
    let url = cluster.url();
    let (mut serving, mut folder) = stand_by(&url).await.unwrap();
    let owner = owner_at(&serving, folder.path(), &url).await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let mut worker = Worker::welcomed(&gateway(&serving), &id, &token).await;
    let mut types = vec!["node.registered", "node.installation_started", "node.connected"];
    owner.await_events(&id, &types).await;
    for round in 0..3 {
        let next = stand_by(&url);
        eventually("the standby waits", async || {
            let seen = cluster.sql("postgres", WAITING).unwrap();
            if seen == "0" { Err(seen) } else { Ok(()) }
        })
        .await;
        signal(&serving, rustix::process::Signal::KILL);
        let began = Instant::now();
        (serving, folder) = next.await.unwrap();
        println!("round {round}: a standby serves {:?} after the kill", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        worker = Worker::welcomed(&gateway(&serving), &id, &token).await;
        let owner = owner_at(&serving, folder.path(), &url).await;
        let node = owner.node(&id).await;
        assert_eq!(
            (&node["status"], &node["websocketConnected"]),
            (&json!("online"), &json!(true)),
            "{node}"
        );
        let (status, answer) = owner.post(&format!("/nodes/{id}/maintenance"), json!({})).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(owner.post(&format!("/nodes/{id}/resume"), json!({})).await.0, 200);
        types.extend(["node.maintenance_mode", "node.resumed"]);
        owner.await_events(&id, &types).await;
    }
    drop(worker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_stood_still_changes_nothing_once_another_serves_and_ends() {
    let cluster = Cluster::start(PASSWORD).unwrap();
    let url = cluster.url();
    let (mut first, folder) = stand_by(&url).await.unwrap();
    let owner = owner_at(&first, folder.path(), &url).await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let _stale = Worker::welcomed(&gateway(&first), &id, &token).await;
    let next = stand_by(&url);
    signal(&first, rustix::process::Signal::STOP);
    let began = Instant::now();
    let (second, other_folder) = next.await.unwrap();
    println!("a standby serves {:?} after the standstill", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let _worker = Worker::welcomed(&gateway(&second), &id, &token).await;
    signal(&first, rustix::process::Signal::CONT);
    // It refuses, as taken over or because what it waited for took too long, and is gone once it has noticed.
    let late = owner.request(reqwest::Method::POST, "/nodes").json(&json!({"name": "late"})).send().await;
    if let Ok(late) = late {
        let (status, text) = (late.status(), late.text().await.unwrap_or_default());
        let told = ["DATABASE_IN_USE", "DATABASE_BUSY"].iter().any(|code| text.contains(code));
        assert!(status == 503 && told, "{status} {text}");
    }
    let ended = tokio::task::spawn_blocking(move || first.child.wait().unwrap()).await.unwrap();
    assert!(!ended.success(), "{ended:?}");
    let owner = owner_at(&second, other_folder.path(), &url).await;
    let node = owner.node(&id).await;
    assert_eq!((&node["status"], &node["websocketConnected"]), (&json!("online"), &json!(true)), "{node}");
    assert_eq!(owner.get("/nodes").await.1["pagination"]["total"], 1);
    owner.await_events(&id, &["node.registered", "node.installation_started", "node.connected"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_with_other_secrets_or_no_server_is_refused_and_one_that_waits_ends_when_it_is_told() {
    let cluster = Cluster::start(PASSWORD).unwrap();
    let url = cluster.url();
    let (_serving, folder) = stand_by(&url).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let config = standing_by(other.path(), &url);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replace(harness::SECRET, "another secret that signs tokens in tests, long enough"),
    )
    .unwrap();
    let flags = ["serve", "--listen", "127.0.0.1:0", "--config", config.to_str().unwrap()];
    let output = run(&flags, &other.path().join("data"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("error[CONFIG_INVALID]: ") && told.contains("other secrets"), "{told}");

    let config = folder.path().join("config.toml");
    let mut waiting = program::program(
        &["serve", "--listen", "127.0.0.1:0", "--config", config.to_str().unwrap()],
        &other.path().join("second"),
    )
    .stdout(Stdio::null())
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    eventually("it waits", async || {
        let seen = cluster.sql("postgres", WAITING).unwrap();
        if seen == "0" { Err(seen) } else { Ok(()) }
    })
    .await;
    rustix::process::kill_process(rustix::process::Pid::from_child(&waiting), rustix::process::Signal::TERM)
        .unwrap();
    assert!(tokio::task::spawn_blocking(move || waiting.wait().unwrap()).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_haproxy_a_worker_and_an_owner_find_whoever_serves_under_one_address() {
    let cluster = Cluster::start(PASSWORD).unwrap();
    let url = cluster.url();
    let ports = [free_port(), free_port()];
    let balancer = Balancer::haproxy(ports);
    let start = |port: u16| {
        let folder = tempfile::tempdir().unwrap();
        let config = standing_by(folder.path(), &url);
        tokio::task::spawn_blocking(move || {
            let listen = format!("127.0.0.1:{port}");
            let flags = ["--listen", &listen, "--config", config.to_str().unwrap()];
            (serve_with(&flags, &folder.path().join("data")), folder)
        })
    };
    let (first, folder) = start(ports[0]).await.unwrap();
    let next = start(ports[1]);
    let direct = owner_at(&first, folder.path(), &url).await;
    let owner = direct.through_address(&balancer.url);
    eventually("the one that serves is found", async || {
        let answer = owner.request(reqwest::Method::GET, "/nodes").send().await.unwrap();
        if answer.status() == 200 { Ok(()) } else { Err(answer.status().to_string()) }
    })
    .await;
    let id = owner.add_node("gpu").await;
    let token = owner.token_of(&id).await;
    let gateway = format!("{}/ws/node", balancer.url.replace("http:", "ws:"));
    let mut worker = Worker::welcomed(&gateway, &id, &token).await;
    worker.heartbeat(1).await;
    signal(&first, rustix::process::Signal::KILL);
    let began = Instant::now();
    let (_second, _folder) = next.await.unwrap();
    let mut worker = eventually("the worker is back", async || {
        Worker::attempt(&gateway, &id, &token).await.ok_or_else(|| "refused".to_owned())
    })
    .await;
    worker.register().await;
    worker.receive("register.ack").await;
    // Most of it is the start of a program that is not optimised.
    println!("a worker is back {:?} after the kill", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    owner.await_events(&id, &["node.registered", "node.installation_started", "node.connected"]).await;
}
