//! The shape of each event as JSON Schema, taken from the protocol's own types: in the OpenAPI
//! document, and as a file of its own for whoever receives events.

use aio_protocol::{
    event::{
        AlarmDetail, ConnectionDetail, DisconnectionDetail, EventData, EventKind, FailureDetail,
        HealthDetail, NoDetail, UpdateDetail, UpdateFailureDetail,
    },
    schema::Named,
    time::Timestamp,
};
use serde_json::{Map, Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, Ref, RefOr, Schema, schema::Type},
};

/// The schema of an event of this type. What it refers to is added to `named`.
pub(super) fn of(kind: EventKind, named: &mut Named) -> RefOr<Schema> {
    let data = match kind {
        EventKind::Registered
        | EventKind::InstallationStarted
        | EventKind::MaintenanceMode
        | EventKind::Resumed
        | EventKind::Decommissioned => data::<NoDetail>(named),
        EventKind::InstallationFailed => data::<FailureDetail>(named),
        EventKind::Connected => data::<ConnectionDetail>(named),
        EventKind::Disconnected => data::<DisconnectionDetail>(named),
        EventKind::Updated => data::<UpdateDetail>(named),
        EventKind::UpdateFailed => data::<UpdateFailureDetail>(named),
        EventKind::HealthChanged => data::<HealthDetail>(named),
        EventKind::AlarmRaised | EventKind::AlarmResolved => data::<AlarmDetail>(named),
    };
    named.push((Timestamp::name().into_owned(), Timestamp::schema()));
    ObjectBuilder::new()
        .property("type", ObjectBuilder::new().schema_type(Type::String).enum_values(Some([kind.as_str()])))
        .property("timestamp", Ref::from_schema_name(Timestamp::name()))
        .property("data", data)
        .required("type")
        .required("timestamp")
        .required("data")
        .into()
}

fn data<D: ToSchema>(named: &mut Named) -> RefOr<Schema>
where
    EventData<D>: ToSchema,
{
    EventData::<D>::schemas(named);
    // What is flattened into the data is a schema of its own that nothing else names.
    D::schemas(named);
    named.push((D::name().into_owned(), D::schema()));
    EventData::<D>::schema()
}

/// The schema of an event of this type, with all that it refers to.
pub(super) fn standalone(kind: EventKind) -> Value {
    let mut named = Named::new();
    let schema = of(kind, &mut named);
    let mut schema = serde_json::to_value(schema).unwrap_or_default();
    let defs: Map<_, _> = named
        .into_iter()
        .map(|(name, schema)| (name, serde_json::to_value(schema).unwrap_or_default()))
        .collect();
    if let Value::Object(fields) = &mut schema {
        fields.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        fields.insert("title".into(), json!(kind.as_str()));
        fields.insert("$defs".into(), Value::Object(defs));
    }
    refer_to_defs(&mut schema);
    schema
}

fn refer_to_defs(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix("#/components/schemas/") {
                *text = format!("#/$defs/{name}");
            }
        }
        Value::Array(values) => values.iter_mut().for_each(refer_to_defs),
        Value::Object(fields) => fields.values_mut().for_each(refer_to_defs),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
