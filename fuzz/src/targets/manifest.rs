use mlxman_manifest::registry::parse;
use mlxman_manifest::{Form, Manifest, Summary};

/// Reads a manifest; one that its schema takes is summarised, and reads the same after a rewrite.
pub fn run(data: &[u8]) {
    let Ok((form, document)) = parse(data) else { return };
    if form == Form::Original {
        return;
    }
    // The schema takes `1.0` for a whole number, and serde does not: an error then, never a panic.
    let Ok(manifest) = serde_json::from_value::<Manifest>(document) else { return };
    drop(Summary::of(&manifest));
    let text = serde_json::to_vec(&manifest).expect("a manifest is JSON");
    let (_, again) = parse(text.as_slice()).expect("what was written is a manifest");
    let again: Manifest = serde_json::from_value(again).expect("and one that is understood");
    assert_eq!(again.model, manifest.model);
}

/// Manifests of both forms, and broken ones.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let current = r#"{"schema_version": 1, "model": "org/name", "model_path": "/m", "store": "hub=/m", "key": "k",
"format": "mlx", "source": {"repo_id": "org/name", "refs": ["main"]}, "quantization": {"label": "4bit", "bits": 4},
"storage": {"present": true, "size_bytes": 1, "files": [{"path": "a", "size": 1}]}, "tags": ["x"], "mine": {"a": 1},
"health": {"status": "damaged", "problems": [{"kind": "dangling_link", "severity": "error", "message": "m"}]},
"evidence": {"format": {"file": "config.json", "key": "k"}}, "user": {"tags": ["x"], "overrides": {"variant": "v"}},
"generated_at": "2026-01-02T03:04:05Z", "generator": "mlxman 0.1.0"}"#;
    let original = r#"{"model": "flux-dev", "model_path": "../victim", "source_id": "a/b", "quantization": "4bit",
"tags": ["flux"], "notes": null, "adapter": {"allows_lora": true, "currently_fused": false},
"storage": {"present": true, "file_count": 2, "size_bytes": null, "last_modified": null}, "generated_at": "x"}"#;
    vec![
        ("current.json", current.into()),
        ("original.json", original.into()),
        ("newer.json", br#"{"schema_version": 2}"#.to_vec()),
        ("wrong-kind.json", current.replace("\"4bit\"", "4").into_bytes()),
        ("deep.json", "[".repeat(4000).into_bytes()),
        ("list.json", b"[]".to_vec()),
        ("empty.json", Vec::new()),
    ]
}
