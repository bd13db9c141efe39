use mlxman_manifest::formats::json::{JsonError, read_json};
use serde_json::Value;

const LIMIT: u64 = 1 << 20;

/// Reads JSON, and reads again what serde_json makes of it.
pub fn run(data: &[u8]) {
    match read_json::<Value>(data, LIMIT) {
        Ok(value) => {
            let text = value.to_string();
            let again: Value = read_json(text.as_bytes(), u64::MAX).expect("what was written is read");
            // A float may be written with fewer digits than it was read with; the text is stable from there.
            assert_eq!(again.to_string(), text);
        }
        Err(JsonError::Syntax { line, .. } | JsonError::Shape { line, .. }) => assert!(line > 0),
        Err(JsonError::Io(error)) => panic!("no file is involved: {error}"),
        Err(JsonError::TooLarge { .. }) => assert!(data.len() as u64 > LIMIT),
        Err(error) => drop(error.to_string()),
    }
}

/// Configs as mlx-lm and transformers write them, and broken ones.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mlx = r#"{"model_type": "qwen2", "hidden_size": 896, "rope_theta": 1000000.0, "tie_word_embeddings": true,
"quantization": {"group_size": 64, "bits": 4, "model.embed_tokens": {"bits": 8}}, "eos_token_id": [151645, 151643]}"#;
    vec![
        ("mlx.json", mlx.into()),
        ("python-numbers.json", br#"{"a": NaN, "b": [Infinity, -Infinity], "NaN": "\"NaN \\"}"#.to_vec()),
        ("byte-order-mark.json", b"\xef\xbb\xbf{\"a\": 1}".to_vec()),
        ("deep-lists.json", "[".repeat(4000).into_bytes()),
        ("deep-objects.json", "{\"a\":".repeat(800).into_bytes()),
        ("huge-numbers.json", br#"[1e999, -1e999, 18446744073709551616, -9223372036854775809, 0.1e-999]"#.to_vec()),
        ("lone-surrogate.json", br#"{"a": "\ud800"}"#.to_vec()),
        ("not-utf8.json", b"{\"a\": \"\xff\xfe\"}".to_vec()),
        ("cut-off.json", br#"{"a": "b\"#.to_vec()),
        ("empty.json", Vec::new()),
    ]
}
