//! What a type of message is about, and its data's JSON Schema: what a document of the interface is
//! made of. Both follow from the types and their documentation.

use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

/// Schemas by name, which others refer to below `#/components/schemas/`.
pub type Named = Vec<(String, RefOr<Schema>)>;

/// A type of message.
#[derive(Clone)]
pub struct Described {
    /// The `type` on the wire.
    pub kind: &'static str,
    /// A sentence.
    pub about: &'static str,
    /// The name of its data's schema, which is among `named`.
    pub data: String,
    /// The data's schema, with all that it refers to.
    pub named: Named,
}

impl Described {
    /// With this data.
    pub fn of<D: ToSchema>(kind: &'static str, about: &'static str) -> Self {
        let mut named = Named::new();
        D::schemas(&mut named);
        named.push((D::name().into_owned(), D::schema()));
        Self { kind, about: about.trim(), data: D::name().into_owned(), named }
    }
}
