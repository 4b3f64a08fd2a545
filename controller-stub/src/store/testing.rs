//! A database for each test: a file in the test's folder, or a schema of its own on the PostgreSQL server
//! that `AIO_TEST_POSTGRES` names.

use std::{env, path::Path};

use reqwest::Url;
use sqlx::{AnyConnection, Connection, Executor};

use super::{Place, Store};
use crate::config::Config;

/// The test's database, empty.
pub(crate) async fn place(folder: &Path) -> Place {
    let Ok(server) = env::var("AIO_TEST_POSTGRES") else { return Place::in_folder(folder).unwrap() };
    let mut config = Config::new(folder);
    config.database_url = Some(schema_on(&server).await.into());
    Place::of(&config).unwrap()
}

/// A store on the test's database.
pub(crate) async fn store(folder: &Path) -> Store {
    Store::open(&place(folder).await).await.unwrap()
}

/// The address of a new schema on a server.
async fn schema_on(server: &str) -> String {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(server).await.unwrap();
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    connection.execute(sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).await.unwrap();
    connection.close().await.unwrap();
    let mut url: Url = server.parse().unwrap();
    url.query_pairs_mut().append_pair("options", &format!("-csearch_path={schema}"));
    url.into()
}
