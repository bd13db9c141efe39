//! Tiny valid models, as lists of files.

mod adapters;
mod foreign;
mod image;
mod spec;

pub use adapters::{mlx_adapter, peft_adapter};
pub use foreign::{awq, bitsandbytes, compressed_tensors, fp8, gguf_model, gptq, pytorch};
pub use image::{diffusers, mflux};
pub use spec::{ModelSpec, Quant};

use serde_json::{Value, json};

use crate::files::{self, Files, text};

/// `config.json` as `mlx_lm` and transformers write JSON.
fn json_file(path: &str, value: &Value) -> (String, Vec<u8>) {
    text(path, &files::json(value, 4))
}

/// A byte-level tokenizer without merges: `<s>`, `</s>`, the chat markers and the 256 bytes, cut to `vocab` entries.
fn tokenizer(vocab: usize) -> Files {
    let special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"];
    let mut entries = serde_json::Map::new();
    let names = special.iter().map(|name| (*name).to_owned()).chain((0..=255_u8).map(byte_symbol));
    for (id, name) in names.take(vocab).enumerate() {
        entries.insert(name, json!(id));
    }
    let added: Vec<Value> = special
        .iter()
        .take(vocab)
        .enumerate()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    let byte_level = |add_prefix_space: bool| json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": byte_level(false), "post_processor": null, "decoder": byte_level(true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": entries, "merges": []},
    });
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
        "model_max_length": 4096,
        "chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
            {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    });
    vec![
        text("tokenizer.json", &files::json(&tokenizer, 2)),
        text("tokenizer_config.json", &files::json(&config, 2)),
    ]
}

/// The printable character that byte-level tokenizers use for a byte.
fn byte_symbol(byte: u8) -> String {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let code = if printable(byte) {
        u32::from(byte)
    } else {
        256 + (0..byte).filter(|other| !printable(*other)).count() as u32
    };
    char::from_u32(code).map_or_else(String::new, String::from)
}

/// A model card: front matter and a heading.
pub(crate) struct Card<'a> {
    pub(crate) library: &'a str,
    pub(crate) license: &'a str,
    pub(crate) base_model: Option<&'a str>,
    pub(crate) relation: Option<&'a str>,
    pub(crate) pipeline: Option<&'a str>,
    pub(crate) tags: &'a [String],
    pub(crate) title: &'a str,
}

impl Card<'_> {
    pub(crate) fn file(&self) -> (String, Vec<u8>) {
        let mut out = format!("---\nlibrary_name: {}\nlicense: {}\n", self.library, self.license);
        let optional = [
            ("base_model", self.base_model),
            ("base_model_relation", self.relation),
            ("pipeline_tag", self.pipeline),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                out.push_str(&format!("{key}: {value}\n"));
            }
        }
        if !self.tags.is_empty() {
            out.push_str("tags:\n");
            for tag in self.tags {
                out.push_str(&format!("- {tag}\n"));
            }
        }
        out.push_str(&format!("---\n# {}\n", self.title));
        text("README.md", &out)
    }
}
