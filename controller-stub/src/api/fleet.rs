//! `GET /metrics/fleet`: the figures of every node and GPU.

use std::sync::Arc;

use aio_protocol::api::ApiError;
use axum::{
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::header,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{error::Rejection, health::AsObserver};
use crate::{
    app::App,
    exporter::fleet::{self, Shard},
};

/// More would each read the list of nodes for hardly any of them.
const MAX_SHARDS: u64 = 64;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Only a part of the nodes, e.g. `1/8`: the first of eight. All parts together are all nodes.
    #[param(value_type = Option<String>)]
    shard: Option<ShardOfQuery>,
    /// `dcgm`: GPUs alone, under the names and labels of dcgm-exporter.
    #[param(inline)]
    names: Option<NamesOfQuery>,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum NamesOfQuery {
    Own,
    Dcgm,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct ShardOfQuery(Shard);

impl TryFrom<String> for ShardOfQuery {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(index, count)| {
            let number = |text: &str| text.parse::<u64>().ok().filter(|_| !text.starts_with('+'));
            Some((number(index)?, number(count)?))
        });
        match numbers {
            Some((index, count)) if (1..=count).contains(&index) && count <= MAX_SHARDS => {
                Ok(Self(Shard { index: index - 1, count }))
            }
            _ => Err(format!(
                "must be a part and how many there are, from `1/1` to `{MAX_SHARDS}/{MAX_SHARDS}`"
            )),
        }
    }
}

/// Read the figures of the fleet
///
/// Of every node in service and every GPU, as Prometheus reads them; docs/monitoring.md lists them. What is
/// not known has no series.
#[utoipa::path(get, path = "/metrics/fleet", operation_id = "fleetMetrics", tag = "operation", security((), ("observer" = [])),
    params(Which), responses(
    (status = 200, description = "The figures", body = String, content_type = "text/plain"),
    (status = 401, description = "TOKEN_MISSING or TOKEN_INVALID, when METRICS_TOKEN is set", body = ApiError),
    (status = 403, description = "FORBIDDEN: not from this machine, or behind a proxy, and METRICS_TOKEN is not set", body = ApiError)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    _: AsObserver,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Response, Rejection> {
    let Query(Which { shard, names }) = which?;
    let names = match names {
        Some(NamesOfQuery::Dcgm) => fleet::Names::Dcgm,
        Some(NamesOfQuery::Own) | None => fleet::Names::Own,
    };
    let shard = shard.map_or(Shard::WHOLE, |ShardOfQuery(shard)| shard);
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    let pieces = fleet::scrape(&app, names, shard).await.map_err(|error| Rejection::fault(&error))?;
    Ok((kind, Body::new(pieces)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_one_of_some() {
        let shard =
            |text: &str| ShardOfQuery::try_from(text.to_owned()).map(|it| (it.0.index, it.0.count)).ok();
        assert_eq!(
            (shard("1/1"), shard("8/8"), shard("64/64")),
            (Some((0, 1)), Some((7, 8)), Some((63, 64)))
        );
        for text in ["", "1", "0/8", "9/8", "1/65", "1/0", "+1/8", "1/8/2", "-1/8", "a/b", " 1/8"] {
            assert_eq!(shard(text), None, "{text}");
        }
    }
}
