//! How a database is opened: what is private, what is refused and with which code, and what an
//! error leaves behind.

use std::{
    fs::{self, OpenOptions, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use aio_protocol::error_code::ErrorCode;
use sqlx::{Executor, Row};

use super::*;
use crate::config::Config;

fn place(folder: &Path) -> Place {
    Place::in_folder(folder).unwrap()
}

fn named(url: &str) -> Result<Place, StoreError> {
    let mut config = Config::new("/nowhere");
    config.database_url = Some(url.into());
    Place::of(&config)
}

/// The code that opening and checking end with, each at once.
async fn code(folder: &Path) -> (ErrorCode, ErrorCode) {
    let began = Instant::now();
    let opened = Store::open(&place(folder)).await.err().expect("it does not open").code();
    let checked = Store::check(&place(folder)).await.expect_err("it is not sound").code();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    (opened, checked)
}

/// A folder with a database of this program that a server has left.
async fn used() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    let store = Store::open(&place(data.path())).await.unwrap();
    for number in 0..200 {
        store.put_setting(&format!("setting-{number}"), &"x".repeat(500)).await.unwrap();
    }
    store.close().await;
    data
}

#[tokio::test]
async fn what_is_no_database_or_is_damaged_has_a_code_of_its_own_at_once() {
    type Damage = (&'static str, fn(&Path));
    let damage: [Damage; 4] = [
        ("a text", |file| fs::write(file, "no database\n".repeat(500)).unwrap()),
        ("cut off", |file| OpenOptions::new().write(true).open(file).unwrap().set_len(10_000).unwrap()),
        ("its head overwritten", |file| {
            let mut bytes = fs::read(file).unwrap();
            bytes[..4096].fill(0xff);
            fs::write(file, bytes).unwrap();
        }),
        ("its schema overwritten", |file| {
            let mut bytes = fs::read(file).unwrap();
            bytes[100..4096].fill(0xff);
            fs::write(file, bytes).unwrap();
        }),
    ];
    for (how, damage) in damage {
        let data = used().await;
        damage(&data.path().join("controller.db"));
        assert_eq!(
            code(data.path()).await,
            (ErrorCode::DatabaseDamaged, ErrorCode::DatabaseDamaged),
            "{how}"
        );
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_found_by_a_check() {
    let data = used().await;
    let file = data.path().join("controller.db");
    let mut bytes = fs::read(&file).unwrap();
    let (from, to) = (bytes.len() / 2, bytes.len());
    bytes[from..to].fill(0xff);
    fs::write(&file, bytes).unwrap();
    assert_eq!(Store::check(&place(data.path())).await.unwrap_err().code(), ErrorCode::DatabaseDamaged);
}

#[tokio::test]
async fn a_database_of_a_later_version_or_of_another_program_is_refused() {
    let data = used().await;
    let mut connection = AnyConnection::connect_with(&place(data.path()).options().unwrap()).await.unwrap();
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9000, 'later', 1, x'00', 0)";
    connection.execute(later).await.unwrap();
    assert_eq!(code(data.path()).await, (ErrorCode::DatabaseNewer, ErrorCode::DatabaseNewer));

    let data = tempfile::tempdir().unwrap();
    let mut connection = AnyConnection::connect_with(&place(data.path()).options().unwrap()).await.unwrap();
    connection.execute("CREATE TABLE bookmarks (url TEXT)").await.unwrap();
    assert_eq!(code(data.path()).await, (ErrorCode::DatabaseDamaged, ErrorCode::DatabaseDamaged));
}

#[tokio::test]
async fn a_database_of_which_a_part_is_gone_is_refused_before_it_serves() {
    for (statement, expected) in [
        ("DROP TABLE audit", ErrorCode::DatabaseDamaged),
        ("DROP TABLE tokens", ErrorCode::DatabaseDamaged),
        ("UPDATE _sqlx_migrations SET success = 0 WHERE version = 2", ErrorCode::DatabaseDamaged),
        ("UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1", ErrorCode::DatabaseDamaged),
        ("DROP TABLE _sqlx_migrations", ErrorCode::DatabaseDamaged),
        ("DROP TABLE _sqlx_migrations; CREATE TABLE _sqlx_migrations (x)", ErrorCode::DatabaseDamaged),
    ] {
        let data = used().await;
        let mut connection =
            AnyConnection::connect_with(&place(data.path()).options().unwrap()).await.unwrap();
        connection.execute(statement).await.unwrap();
        connection.close().await.unwrap();
        assert_eq!(code(data.path()).await, (expected, expected), "{statement}");
    }
}

#[tokio::test]
async fn a_database_of_the_first_release_is_brought_forward_with_all_that_it_holds() {
    let data = tempfile::tempdir().unwrap();
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect_with(&place(data.path()).options().unwrap()).await.unwrap();
    place(data.path()).migrations().run_direct(Some(5), &mut connection, false).await.unwrap();
    let node = "INSERT INTO nodes (id, version, org_id, user_id, name, roles, status, created_at, websocket_connected) \
                VALUES ('69396100cd71623c7bbfbfee', 1, 'o', 'u', 'gpu-10', '[\"worker\"]', 'pending', 1, 0)";
    connection.execute(node).await.unwrap();
    connection.close().await.unwrap();
    Store::check(&place(data.path())).await.unwrap();
    let store = Store::open(&place(data.path())).await.unwrap();
    let kept = store.node(&"69396100cd71623c7bbfbfee".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(kept.name, "gpu-10");
    store.close().await;
    Store::check(&place(data.path())).await.unwrap();
}

#[tokio::test]
async fn a_place_that_leads_nowhere_or_into_memory_is_refused() {
    let data = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("nowhere/at/all", data.path().join("controller.db")).unwrap();
    assert_eq!(code(data.path()).await, (ErrorCode::FileFailed, ErrorCode::FileFailed));
    for url in ["sqlite::memory:", "sqlite://:memory:"] {
        assert_eq!(named(url).unwrap_err().code(), ErrorCode::ConfigInvalid, "{url}");
    }
}

#[tokio::test]
async fn a_place_that_is_no_file_is_told_as_that() {
    let data = tempfile::tempdir().unwrap();
    fs::create_dir(data.path().join("controller.db")).unwrap();
    assert_eq!(code(data.path()).await, (ErrorCode::FileFailed, ErrorCode::FileFailed));
}

#[tokio::test]
async fn a_check_makes_and_changes_nothing() {
    let data = tempfile::tempdir().unwrap();
    Store::check(&place(data.path())).await.unwrap();
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
    let data = used().await;
    let before = fs::read(data.path().join("controller.db")).unwrap();
    Store::check(&place(data.path())).await.unwrap();
    assert_eq!(fs::read(data.path().join("controller.db")).unwrap(), before);
}

#[tokio::test]
async fn the_files_are_private_whoever_made_them() {
    let modes = |folder: &Path| {
        let mut modes: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (
                    entry.file_name().into_string().unwrap(),
                    entry.metadata().unwrap().permissions().mode() & 0o777,
                )
            })
            .collect();
        modes.sort();
        modes
    };
    let data = tempfile::tempdir().unwrap();
    let serving = place(data.path()).serve(false).await.unwrap();
    let store = Store::open_as_server(&place(data.path()), &serving, &Pulses::default()).await.unwrap();
    store.put_setting("owner", "one").await.unwrap();
    let names = [
        "controller.db",
        "controller.db-shm",
        "controller.db-wal",
        "controller.db.lock",
        "controller.db.reserve",
    ];
    assert_eq!(modes(data.path()), names.map(|name| (name.to_owned(), 0o600)));
    for (name, _) in modes(data.path()) {
        fs::set_permissions(data.path().join(name), Permissions::from_mode(0o644)).unwrap();
    }
    let _again = Store::open(&place(data.path())).await.unwrap();
    for name in ["controller.db", "controller.db-shm", "controller.db-wal"] {
        let mode = fs::metadata(data.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
}

#[tokio::test]
async fn one_server_at_a_time_serves_a_database_however_it_is_named() {
    let data = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(data.path(), data.path().join("link")).unwrap();
    let first = place(data.path());
    let second = format!("sqlite:{}/link/controller.db?mode=rwc", data.path().display());
    let second = named(&second).unwrap();
    let held = first.serve(false).await.unwrap();
    assert_eq!(second.serve(false).await.err().unwrap().code(), ErrorCode::DatabaseInUse);
    // A command beside it is welcome.
    Store::open(&second).await.unwrap();
    drop(held);
    second.serve(false).await.unwrap();
}

#[tokio::test]
async fn the_log_of_writes_shrinks_again() {
    let data = tempfile::tempdir().unwrap();
    let store = Store::open(&place(data.path())).await.unwrap();
    // Somebody who reads all the while keeps the log from being used anew.
    let mut reader = AnyConnection::connect_with(&place(data.path()).options().unwrap()).await.unwrap();
    reader.execute("BEGIN; SELECT * FROM settings").await.unwrap();
    store.put_setting("large", &"x".repeat(30_000_000)).await.unwrap();
    reader.execute("COMMIT").await.unwrap();
    let wal = || fs::metadata(data.path().join("controller.db-wal")).unwrap().len();
    assert!(wal() > 20_000_000);
    for number in 0..3 {
        store.put_setting("small", &number.to_string()).await.unwrap();
    }
    assert!(wal() <= 4_200_000, "{} bytes", wal());
}

#[tokio::test]
async fn another_process_that_holds_the_database_is_waited_for_once() {
    let data = tempfile::tempdir().unwrap();
    let store = Store::open(&place(data.path())).await.unwrap();
    let mut other = AnyConnection::connect_with(&place(data.path()).options().unwrap()).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let began = Instant::now();
    let writes = (0..10).map(|number| {
        let store = store.clone();
        async move { store.put_setting("a", &number.to_string()).await.unwrap_err() }
    });
    for error in futures_util::future::join_all(writes).await {
        assert_eq!(error.code(), ErrorCode::DatabaseBusy);
    }
    // The first write is a batch of its own, and the others are the second.
    assert!(began.elapsed() < PATIENCE * 2 + Duration::from_secs(2), "{:?}", began.elapsed());
    other.execute("ROLLBACK").await.unwrap();
    store.put_setting("a", "b").await.unwrap();
}

#[tokio::test]
async fn a_database_is_made_wherever_its_folder_is_and_survives_its_process() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("odd name %41 ? # é");
    std::fs::create_dir(&folder).unwrap();
    let store = Store::open(&place(&folder)).await.unwrap();
    assert_eq!(store.settle("owner", "first").await.unwrap(), "first");
    assert_eq!(store.settle("owner", "second").await.unwrap(), "first");
    store.close().await;
    assert!(folder.join("controller.db").is_file());

    let again = Store::open(&place(&folder)).await.unwrap();
    assert_eq!(again.setting("owner").await.unwrap().as_deref(), Some("first"));
    again.put_setting("owner", "third").await.unwrap();
    assert_eq!(again.setting("owner").await.unwrap().as_deref(), Some("third"));
    assert_eq!(again.setting("nothing").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_may_start_on_a_new_database_at_once() {
    let data = tempfile::tempdir().unwrap();
    let open = || {
        let folder = data.path().to_owned();
        tokio::spawn(async move { Store::open(&place(&folder)).await })
    };
    let (first, second) = (open(), open());
    first.await.unwrap().unwrap().put_setting("owner", "one").await.unwrap();
    assert_eq!(second.await.unwrap().unwrap().setting("owner").await.unwrap().as_deref(), Some("one"));
}

#[tokio::test]
async fn every_connection_is_durable_and_patient() {
    let data = tempfile::tempdir().unwrap();
    let store = Store::open(&place(data.path())).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..place(data.path()).readers() {
        let mut connection = store.pool.take().await.unwrap();
        let read = async |connection: &mut sqlx::AnyConnection, pragma| {
            let row = sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA {pragma}")))
                .fetch_one(connection)
                .await
                .unwrap();
            row.try_get::<i64, _>(0).unwrap()
        };
        assert_eq!(read(&mut connection, "synchronous").await, 2);
        assert_eq!(read(&mut connection, "busy_timeout").await, 5_000);
        held.push(connection);
    }
}
