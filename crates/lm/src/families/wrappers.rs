//! Models that see: only their text model is described.

use serde_json::{Map, Value};

use super::family_of;
use crate::config::{Config, ConfigError};
use crate::decoder::{Decoder, Head};

/// What the text model's tensors are called: by mlx_lm, and by transformers.
const NAMES: &[(&str, &str)] =
    &[("model.language_model.", "model."), ("language_model.model.", "model."), ("language_model.", "")];

pub(super) fn gemma3(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let mut text = text(config);
    if let Some(vocab) = config.get("vocab_size") {
        text.insert("vocab_size".to_owned(), vocab.clone());
    }
    // What its configs leave out is as in the model of 4 billion weights.
    for (key, value) in [("vocab_size", 262_208), ("num_attention_heads", 8), ("num_key_value_heads", 4)] {
        text.entry(key).or_insert_with(|| value.into());
    }
    described("gemma3", "gemma3_text", text)
}

pub(super) fn mistral3(config: Config<'_>) -> Result<Decoder, ConfigError> {
    let mut text = text(config);
    text.entry("tie_word_embeddings").or_insert(Value::Bool(false));
    let kind = match text.get("model_type").and_then(Value::as_str) {
        Some("ministral3") => "ministral3",
        Some("mistral4") => "mistral4",
        _ => "llama",
    };
    described("mistral3", kind, text)
}

pub(super) fn qwen2_vl(config: Config<'_>) -> Result<Decoder, ConfigError> {
    described("qwen2_vl", "qwen2", text(config))
}

pub(super) fn qwen3_vl(config: Config<'_>) -> Result<Decoder, ConfigError> {
    described("qwen3_vl", "qwen3", text(config))
}

pub(super) fn qwen3_vl_moe(config: Config<'_>) -> Result<Decoder, ConfigError> {
    described("qwen3_vl_moe", "qwen3_moe", text(config))
}

/// `text_config`, or all of a config that has none.
fn text(config: Config<'_>) -> Map<String, Value> {
    config.section("text_config").unwrap_or(config).to_map()
}

fn described(family: &'static str, kind: &str, text: Map<String, Value>) -> Result<Decoder, ConfigError> {
    let text = Value::Object(text);
    let described = family_of(kind).ok_or_else(|| ConfigError::UnknownFamily(kind.to_owned()))?;
    let decoder = (described.describe)(Config::new(&text)?)?;
    // Whether the head is the embedding's matrix may be told beside `text_config`.
    let head = Head { may_be_tied: true, ..decoder.head };
    Ok(Decoder { family, head, renames: NAMES, ..decoder })
}
