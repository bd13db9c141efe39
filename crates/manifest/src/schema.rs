//! The JSON Schemas of what this crate writes, and validation against them.

use std::sync::OnceLock;

use jsonschema::Validator;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use crate::catalog::CatalogEntry;
use crate::record::Manifest;

/// The schema of a type, as JSON Schema 2020-12.
pub fn schema_of<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>()
}

/// The schema of a manifest.
pub fn manifest_schema() -> Schema {
    schema_of::<Manifest>()
}

/// The schema of a catalog entry.
pub fn catalog_schema() -> Schema {
    schema_of::<CatalogEntry>()
}

/// The schema of what the original `model_manifest.py` wrote.
pub fn original_schema() -> Value {
    let text = json!({"type": "string"});
    let text_or_null = json!({"type": ["string", "null"]});
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "original manifest",
        "description": "What the original model_manifest.py wrote. mlxman reads it, keeps it, and upgrades it to its own record.",
        "type": "object",
        "required": ["model", "storage"],
        "properties": {
            "model": text, "model_path": text, "source_id": text_or_null, "variant": text_or_null,
            "precision": text_or_null, "quantization": text_or_null, "notes": text_or_null,
            "tags": {"type": ["array", "null"], "items": text},
            "adapter": {
                "type": ["object", "null"],
                "properties": {
                    "allows_lora": {"type": ["boolean", "null"]},
                    "currently_fused": {"type": ["boolean", "null"]},
                    "fused_from": text_or_null
                }
            },
            "storage": {
                "type": "object",
                "required": ["present"],
                "properties": {
                    "present": {"type": "boolean"},
                    "file_count": {"type": ["integer", "null"], "minimum": 0},
                    "size_bytes": {"type": ["integer", "null"], "minimum": 0},
                    "last_modified": text_or_null
                }
            },
            "generated_at": text_or_null
        }
    })
}

fn compiled(
    cell: &'static OnceLock<Option<Validator>>,
    schema: impl FnOnce() -> Value,
) -> Option<&'static Validator> {
    cell.get_or_init(|| jsonschema::validator_for(&schema()).ok()).as_ref()
}

/// Why a document was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", if field.is_empty() { "the document" } else { field })]
pub struct Rejected {
    /// Which field, as `a.b.0.c`; empty for the document itself.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

/// Which form a manifest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// This program's.
    Current,
    /// The original scripts'.
    Original,
}

/// Checks a manifest against its schema: the original scripts' where it has no `schema_version`.
///
/// # Errors
/// The first field that the schema rejects, and why.
pub fn check_manifest(document: &Value) -> Result<Form, Rejected> {
    static CURRENT: OnceLock<Option<Validator>> = OnceLock::new();
    static ORIGINAL: OnceLock<Option<Validator>> = OnceLock::new();
    if !document.is_object() {
        return Err(Rejected { field: String::new(), why: "is not an object".to_owned() });
    }
    let (form, validator) = match document.get("schema_version") {
        None => (Form::Original, compiled(&ORIGINAL, original_schema)),
        Some(version) => {
            if let Some(newer) =
                version.as_u64().filter(|version| *version > u64::from(crate::SCHEMA_VERSION))
            {
                return Err(Rejected {
                    field: "schema_version".to_owned(),
                    why: format!(
                        "is {newer}, written by a newer mlxman; this one knows {}",
                        crate::SCHEMA_VERSION
                    ),
                });
            }
            (Form::Current, compiled(&CURRENT, || manifest_schema().to_value()))
        }
    };
    let validator = validator.ok_or_else(|| Rejected {
        field: String::new(),
        why: "could not be checked: the built-in schema does not compile; please report this".to_owned(),
    })?;
    match validator.iter_errors(document).next() {
        None => Ok(form),
        Some(error) => {
            let field = error.instance_path().to_string().trim_start_matches('/').replace('/', ".");
            Err(Rejected { field, why: error.to_string() })
        }
    }
}

/// The names of the fields of the record's object at `path` (empty for the record itself), or `None` where the record
/// has no object with fields of its own there. What is not among them is somebody else's, and survives a rewrite.
pub(crate) fn known_fields(path: &[&str]) -> Option<Vec<String>> {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    let root = SCHEMA.get_or_init(|| manifest_schema().to_value());
    let mut here = root;
    for name in path {
        here = resolve(root, here.get("properties")?.get(name)?);
    }
    let fields = here.get("properties")?.as_object()?;
    Some(fields.keys().cloned().collect())
}

fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let reference = schema.get("$ref").or_else(|| schema.get("allOf")?.get(0)?.get("$ref"));
    let pointer = reference.and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_nested_objects_are_known() {
        assert!(known_fields(&[]).unwrap().contains(&"quantization".to_owned()));
        assert!(known_fields(&["quantization"]).unwrap().contains(&"group_size".to_owned()));
        assert!(known_fields(&["storage"]).unwrap().contains(&"reclaimable_bytes".to_owned()));
        assert_eq!(known_fields(&["tags"]), None);
    }

    #[test]
    fn a_rejection_names_the_field() {
        let error = check_manifest(&json!({"schema_version": 1, "model": 7})).unwrap_err();
        assert!(!error.why.is_empty());
        let error = check_manifest(&json!({"model": "x", "storage": {"present": "yes"}})).unwrap_err();
        assert_eq!(error.field, "storage.present");
        let newer = check_manifest(&json!({"schema_version": 2})).unwrap_err();
        assert_eq!(newer.field, "schema_version");
        assert!(check_manifest(&json!([1])).is_err());
        assert_eq!(check_manifest(&json!({"model": "x", "storage": {"present": true}})), Ok(Form::Original));
    }
}
