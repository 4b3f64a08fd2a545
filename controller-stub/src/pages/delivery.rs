//! Events on their way to NOTI: whether they are delivered, what waits, and what was given up.

use std::{sync::Arc, time::Duration};

use aio_protocol::{event::NodeEvent, time::Timestamp};
use askama::Template;
use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use serde::Deserialize;

use super::{
    Pages, events,
    frame::{Frame, Tab},
    nodes::Pagination,
    session::Visitor,
    words,
};
use crate::{api::error::Rejection, clock, outbox::DeliveryState, store::DeliveryNumbers};

const PERIOD: Duration = Duration::from_secs(7 * 86_400);

/// A dead letter, as the API lists it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Letter {
    id: String,
    reason: String,
    attempts: u32,
    died_at: Timestamp,
    event: NodeEvent,
}

#[derive(Deserialize)]
struct Letters {
    data: Vec<Letter>,
    pagination: Pagination,
}

struct Line {
    id: String,
    reason: String,
    attempts: u32,
    died_at: Timestamp,
    event: events::Line,
}

#[derive(Template)]
#[template(path = "pages/delivery.html")]
struct Delivery {
    frame: Frame,
    state: DeliveryState,
    class: &'static str,
    numbers: DeliveryNumbers,
    letters: Vec<Line>,
    total: u64,
    before: Option<u64>,
    after: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    page: String,
}

pub(super) async fn show(
    State(_): State<Arc<Pages>>,
    visitor: Visitor,
    which: Result<Query<Which>, QueryRejection>,
) -> Response {
    let built = async {
        let page = which?.0.page.parse().unwrap_or(1_u64).max(1);
        let letters: Letters = visitor.api.get(&format!("/dead-letters?limit=50&page={page}")).await?;
        let since = clock::now().minus(PERIOD);
        let numbers = visitor.app().store.delivery_numbers(&visitor.user().org_id, since).await?;
        let state = visitor.app().outbox.delivery();
        let line = |it: Letter| Line {
            id: it.id,
            reason: it.reason,
            attempts: it.attempts,
            died_at: it.died_at,
            event: events::Line::new(&it.event),
        };
        Ok::<_, Rejection>(Delivery {
            frame: Frame::new(&visitor.scene, Tab::Delivery),
            class: match state {
                DeliveryState::Running => "good",
                DeliveryState::Probing => "busy",
                DeliveryState::Paused => "warn",
                DeliveryState::Stopped => "bad",
            },
            state,
            numbers,
            total: letters.pagination.total,
            before: (page > 1).then(|| page - 1),
            after: (page < letters.pagination.total_pages).then(|| page + 1),
            letters: letters.data.into_iter().map(line).collect(),
        })
    };
    match built.await {
        Ok(page) => visitor.scene.page(&page),
        Err(rejection) => visitor.scene.refuse(rejection),
    }
}
