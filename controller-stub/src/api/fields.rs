//! Fields that hold nothing impossible: they parse or refuse, and the refusal goes to whoever asked, with the
//! field's name.

use std::borrow::Cow;

use aio_protocol::time::Timestamp;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IntoDeserializer},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, schema::Type},
};

use crate::store::Window;

/// A whole number between two others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub(super) struct Bounded<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Bounded<MIN, MAX> {
    pub(super) fn value(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<u64> for Bounded<MIN, MAX> {
    type Error = String;

    fn try_from(number: u64) -> Result<Self, String> {
        if (MIN..=MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(format!("must be between {MIN} and {MAX}"))
        }
    }
}

impl<const MIN: u64, const MAX: u64> PartialSchema for Bounded<MIN, MAX> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(MIN)).maximum(Some(MAX)).into()
    }
}

impl<const MIN: u64, const MAX: u64> ToSchema for Bounded<MIN, MAX> {
    // Each has a schema of its own.
    fn name() -> Cow<'static, str> {
        format!("From{MIN}To{MAX}").into()
    }
}

/// Of a page, counted from 1.
pub(super) type PageNumber = Bounded<1, 1_000_000_000>;

/// How many entries a page has.
pub(super) type PageSize = Bounded<1, 100>;

const DEFAULT_PAGE_SIZE: u64 = 20;

/// Which page was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paging {
    page: u64,
    limit: u64,
}

/// Which page an answer is, and of how many.
#[derive(Debug, serde::Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pagination {
    /// Counted from 1; absent behind a cursor.
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<u64>,
    /// Entries on a whole page.
    limit: u64,
    /// Entries on all pages.
    total: u64,
    total_pages: u64,
    /// What `cursor` takes to go on behind this page; absent on the last, and where there are pages alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl Pagination {
    /// With the cursor of the next page; `of_cursor` tells that this one was found by a cursor, too.
    pub(super) fn going_on(self, next_cursor: Option<String>, of_cursor: bool) -> Self {
        Self { next_cursor, page: self.page.filter(|_| !of_cursor), ..self }
    }
}

impl Paging {
    pub(super) fn new(page: Option<PageNumber>, limit: Option<PageSize>) -> Self {
        Self { page: page.map_or(1, Bounded::value), limit: limit.map_or(DEFAULT_PAGE_SIZE, Bounded::value) }
    }

    pub(super) fn window(self) -> Window {
        Window { offset: (self.page - 1).saturating_mul(self.limit), limit: self.limit }
    }

    pub(super) fn of(self, total: u64) -> Pagination {
        let Self { page, limit } = self;
        Pagination { page: Some(page), limit, total, total_pages: total.div_ceil(limit), next_cursor: None }
    }
}

/// A time in a query, whose `+` may have become a blank.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct TimeOfQuery(pub Timestamp);

impl TryFrom<String> for TimeOfQuery {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = "must be a time as RFC 3339 writes it: 2025-12-11T12:00:00Z";
        Timestamp::from_query(&text).map(Self).ok_or(wrong)
    }
}

impl PartialSchema for TimeOfQuery {
    fn schema() -> RefOr<Schema> {
        Timestamp::schema()
    }
}

impl ToSchema for TimeOfQuery {}

/// Values with commas between them, each at most once and one at least.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String", bound = "T: DeserializeOwned")]
pub(super) struct OneOrMore<T>(pub Vec<T>);

impl<T: DeserializeOwned> TryFrom<String> for OneOrMore<T> {
    type Error = serde::de::value::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let values =
            parts.map(|part| T::deserialize(part.into_deserializer())).collect::<Result<Vec<_>, _>>()?;
        if values.is_empty() { Err(serde::de::Error::custom("must not be empty")) } else { Ok(Self(values)) }
    }
}
