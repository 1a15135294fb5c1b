//! The JSON Schema (2020-12) of the machine's file.
//!
//! Its form is read off the types that parse the file, by serde, so that the two cannot drift; the descriptions are the
//! rows of docs/reference.md, and a test holds each key against one. What the schema lets pass may still be a mistake:
//! `coracle check` has the last word.

mod probe;
mod reference;
mod words;

use config::manifest::Manifest;
use serde_json::{Map, Value, json};

use probe::shape_of;
pub use probe::{Field, Shape};

/// The dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Where the schema would be.
const ID: &str = "https://github.com/coracle-os/coracle/schema/machine.json";

/// The shape of a machine's file.
pub fn machine() -> Shape {
    shape_of::<Manifest>()
}

/// The schema.
pub fn schema() -> Value {
    let mut schema = of_shape(&machine(), "");
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("$schema".to_owned(), DIALECT.into());
        schema.insert("$id".to_owned(), ID.into());
        schema.insert("title".to_owned(), "A machine of Coracle".into());
    }
    schema
}

/// The schema of a value whose key stands at `path` (`workload.*.health.http`).
fn of_shape(shape: &Shape, path: &str) -> Value {
    match shape {
        Shape::Text => match words::of(path) {
            Some(words) => json!({ "type": "string", "enum": words }),
            None => json!({ "type": "string" }),
        },
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Integer => json!({ "type": "integer" }),
        Shape::Number => json!({ "type": "number" }),
        Shape::TextOrTexts => json!({
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
        }),
        Shape::Array(item) => json!({ "type": "array", "items": of_shape(item, path) }),
        Shape::Map(value) => json!({
            "type": "object",
            "additionalProperties": of_shape(value, &format!("{path}.*")),
        }),
        Shape::Table(fields) => of_table(fields, path),
    }
}

fn of_table(fields: &[Field], path: &str) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in fields {
        let path = match path {
            "" => field.name.to_owned(),
            path => format!("{path}.{}", field.name),
        };
        let mut value = of_shape(&field.shape, &path);
        if let (Some(text), Some(value)) = (reference::description(&path), value.as_object_mut()) {
            value.insert("description".to_owned(), text.into());
        }
        properties.insert(field.name.to_owned(), value);
        if field.required {
            required.push(field.name);
        }
    }
    let mut table = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        table["required"] = required.into();
    }
    table
}

#[cfg(test)]
mod tests;
