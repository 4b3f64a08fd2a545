//! For the tests with hostile input: every body and every query of the API, read from bytes.

use aio_protocol::installation::InstallationReport;
use axum::{extract::Query, http::Uri};
use serde::de::DeserializeOwned;

use super::{
    body::{NoFields, parse},
    dashboards, dead_letters, events, installation, nodes, token, transitions,
};

/// Whether one of the bodies can be read.
pub(crate) fn body(bytes: &[u8]) -> bool {
    let report = parse::<installation::Report>(bytes);
    report.is_ok_and(|report| InstallationReport::try_from(report).is_ok())
        | parse::<nodes::Registration>(bytes).is_ok()
        | parse::<token::TokenRequest>(bytes).is_ok()
        | parse::<NoFields>(bytes).is_ok()
}

/// Whether one of the queries can be read.
pub(crate) fn query(text: &str) -> bool {
    fn reads<T: DeserializeOwned>(uri: &Uri) -> bool {
        Query::<T>::try_from_uri(uri).is_ok()
    }
    let Ok(uri) = Uri::builder().path_and_query(format!("/?{text}")).build() else { return false };
    reads::<nodes::Filter>(&uri)
        | reads::<events::Filter>(&uri)
        | reads::<installation::For>(&uri)
        | reads::<transitions::Which>(&uri)
        | reads::<dead_letters::Pages>(&uri)
        | reads::<dashboards::From>(&uri)
}
