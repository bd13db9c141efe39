//! `mlxman schema`: the JSON Schemas of what is read and written.

use anyhow::Result;
use serde_json::Value;

use crate::args::Schema;
use crate::context::Context;
use crate::exit::{Verdict, wrong};

const NAMES: [&str; 15] = [
    "applied",
    "catalog-entry",
    "duplicates",
    "explain",
    "hub",
    "journal",
    "list",
    "manifest",
    "original-manifest",
    "plan",
    "repairs",
    "sync",
    "trash",
    "undo",
    "verify",
];

pub(super) fn run(args: &Schema, context: &Context) -> Result<Verdict> {
    let Some(name) = args.name.as_deref().filter(|_| !args.list) else {
        context.printer.data(&NAMES.join("\n"))?;
        return Ok(Verdict::Fine);
    };
    let schema = match name {
        "manifest" => mlxman_manifest::manifest_schema().to_value(),
        "catalog-entry" => mlxman_manifest::catalog_schema().to_value(),
        "original-manifest" => mlxman_manifest::original_schema(),
        "explain" => mlxman_clean::explain_schema().to_value(),
        "plan" => mlxman_clean::plan_schema().to_value(),
        "hub" => mlxman_clean::hub_schema().to_value(),
        "repairs" => mlxman_clean::repairs_schema().to_value(),
        "applied" => mlxman_clean::applied_schema().to_value(),
        "duplicates" => mlxman_clean::duplicates_schema().to_value(),
        "journal" => mlxman_clean::journal_schema().to_value(),
        "trash" => mlxman_manifest::schema_of::<mlxman_clean::TrashListing>().to_value(),
        "undo" => mlxman_manifest::schema_of::<mlxman_clean::UndoReport>().to_value(),
        "sync" => mlxman_manifest::schema_of::<mlxman_manifest::registry::SyncReport>().to_value(),
        "list" => list(),
        "verify" => mlxman_manifest::schema_of::<mlxman_verify::Results>().to_value(),
        _ => return Err(wrong(format!("there is no schema `{name}`; there are {}", NAMES.join(", ")))),
    };
    context.printer.json(&schema)?;
    Ok(Verdict::Fine)
}

/// `list --json`: manifests, each of the manifest's schema, and what is no model.
fn list() -> Value {
    let mut problem = mlxman_manifest::schema_of::<Vec<mlxman_manifest::registry::StoreProblem>>().to_value();
    let definitions = problem.as_object_mut().and_then(|map| map.remove("$defs")).unwrap_or_default();
    if let Some(map) = problem.as_object_mut() {
        map.remove("$schema");
        map.remove("title");
    }
    serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mlxman list",
        "type": "object",
        "required": ["schema", "models", "problems"],
        "properties": {
            "schema": {"const": "mlxman-list-1"},
            "models": {"type": "array", "items": {"type": "object", "description": "a manifest: see the schema `manifest`"}},
            "problems": problem,
            "totals": {
                "type": "object",
                "properties": {
                    "models": {"type": "integer", "description": "rows"},
                    "size_bytes": {"type": "integer", "description": "apparent bytes of the models that are present, summed: what two share counts twice"},
                    "allocated_bytes": {"type": "integer", "description": "without filters: what the stores of these models take on their disks, each inode once"}
                }
            }
        },
        "$defs": definitions
    })
}
