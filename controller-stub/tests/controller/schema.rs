//! As much of JSON Schema as the OpenAPI document uses: says where a value is not as its schema
//! wants it. An unknown keyword is an error, so that nothing is taken for checked that is not.

use serde_json::{Map, Value};

/// A document that schemas refer into.
pub(crate) struct Schemas<'a>(pub &'a Value);

const ANNOTATIONS: [&str; 10] = [
    "description",
    "title",
    "example",
    "examples",
    "format",
    "default",
    "$schema",
    "$defs",
    "pattern",
    "propertyNames",
];

impl Schemas<'_> {
    /// What is wrong with `value`, if anything is.
    pub(crate) fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        self.at("", schema, value)
    }

    fn at(&self, place: &str, schema: &Value, value: &Value) -> Result<(), String> {
        let Value::Object(keywords) = schema else { return Ok(()) };
        for (keyword, wanted) in keywords {
            self.keyword(place, keywords, keyword, wanted, value).map_err(|problem| {
                if problem.contains(": ") { problem } else { format!("{place}: {problem}: {value}") }
            })?;
        }
        Ok(())
    }

    fn keyword(
        &self,
        place: &str,
        schema: &Map<String, Value>,
        keyword: &str,
        wanted: &Value,
        value: &Value,
    ) -> Result<(), String> {
        let each = |schemas: &Value| -> Vec<_> {
            schemas.as_array().unwrap().iter().map(|it| self.at(place, it, value)).collect()
        };
        let holds = match (keyword, value) {
            ("$ref", _) => {
                let pointer = wanted.as_str().unwrap().trim_start_matches('#');
                let target = self.0.pointer(pointer).unwrap_or_else(|| panic!("{pointer} leads nowhere"));
                return self.at(place, target, value);
            }
            ("allOf", _) => return each(wanted).into_iter().collect(),
            ("oneOf", _) => {
                let outcomes = each(wanted);
                let fitting = outcomes.iter().filter(|it| it.is_ok()).count();
                if fitting == 1 { true } else { return Err(format!("{fitting} of oneOf fit: {outcomes:?}")) }
            }
            ("type", _) => match wanted {
                Value::Array(types) => types.iter().any(|it| is(it, value)),
                one => is(one, value),
            },
            ("enum", _) => wanted.as_array().unwrap().contains(value),
            ("required", Value::Object(fields)) => {
                let missing =
                    wanted.as_array().unwrap().iter().find(|it| !fields.contains_key(it.as_str().unwrap()));
                match missing {
                    Some(field) => return Err(format!("{place}: {field} is missing in {value}")),
                    None => true,
                }
            }
            ("properties", Value::Object(fields)) => {
                for (name, schema) in wanted.as_object().unwrap() {
                    if let Some(field) = fields.get(name) {
                        self.at(&format!("{place}/{name}"), schema, field)?;
                    }
                }
                true
            }
            ("additionalProperties", Value::Object(fields)) => {
                let known = schema.get("properties").and_then(Value::as_object);
                let others =
                    fields.iter().filter(|(name, _)| !known.is_some_and(|it| it.contains_key(*name)));
                for (name, field) in others {
                    if wanted == &Value::Bool(false) {
                        return Err(format!("{place}: {name} is unknown"));
                    }
                    self.at(&format!("{place}/{name}"), wanted, field)?;
                }
                true
            }
            ("items", Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.at(&format!("{place}/{index}"), wanted, item)?;
                }
                true
            }
            ("minimum", Value::Number(number)) => number.as_f64() >= wanted.as_f64(),
            ("maximum", Value::Number(number)) => number.as_f64() <= wanted.as_f64(),
            ("maxProperties", Value::Object(fields)) => fields.len() as u64 <= wanted.as_u64().unwrap(),
            ("minItems", Value::Array(items)) => items.len() as u64 >= wanted.as_u64().unwrap(),
            ("minLength", Value::String(text)) => text.chars().count() as u64 >= wanted.as_u64().unwrap(),
            ("maxLength", Value::String(text)) => text.chars().count() as u64 <= wanted.as_u64().unwrap(),
            // What concerns another type says nothing of this value.
            (
                "required"
                | "properties"
                | "additionalProperties"
                | "maxProperties"
                | "items"
                | "minimum"
                | "maximum"
                | "minItems"
                | "minLength"
                | "maxLength",
                _,
            ) => true,
            (annotation, _) if ANNOTATIONS.contains(&annotation) => true,
            (unknown, _) => panic!("the schema's keyword {unknown} is not known here"),
        };
        if holds { Ok(()) } else { Err(format!("{place}: {value} does not fit {keyword} {wanted}")) }
    }
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type of JSON"),
    }
}
