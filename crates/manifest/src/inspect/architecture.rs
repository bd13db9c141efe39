//! What a model is made of: `config.json`, `model_index.json`, a GGUF header.

use serde_json::Value;

use super::Subject;
use crate::record::Architecture;

impl Subject<'_> {
    pub(super) fn architecture(&mut self) -> Architecture {
        let mut architecture = Architecture::default();
        if let Some(gguf) = self.tensors.gguf.first() {
            let header = &gguf.header;
            architecture.model_type = header.architecture().map(str::to_owned);
            architecture.layers = header.arch_u64("block_count");
            architecture.hidden_size = header.arch_u64("embedding_length");
            architecture.attention_heads = header.arch_u64("attention.head_count");
            architecture.key_value_heads = header.arch_u64("attention.head_count_kv");
            architecture.context_length = header.arch_u64("context_length");
            architecture.vocabulary_size = header.vocab_size();
            architecture.experts = header.arch_u64("expert_count").filter(|n| *n > 0);
            architecture.experts_per_token = header.arch_u64("expert_used_count").filter(|n| *n > 0);
            let path = gguf.path.clone();
            if architecture.model_type.is_some() {
                self.says("architecture.model_type", &path, "general.architecture");
            }
        } else if let Some(index) = self.model_index.clone() {
            architecture.model_type = index.get("_class_name").and_then(Value::as_str).map(str::to_owned);
            if architecture.model_type.is_some() {
                self.says("architecture.model_type", "model_index.json", "_class_name");
            }
            architecture.components = components(&index);
        } else if let Some(config) = self.config.clone() {
            self.read_config(&config, &mut architecture);
        } else if self.tensors.is_pipeline() {
            let mut parts: Vec<String> =
                self.tensors.files.iter().map(|file| file.component().to_owned()).collect();
            parts.sort_unstable();
            parts.dedup();
            architecture.components = parts;
        }
        self.modality(&mut architecture);
        architecture
    }

    fn read_config(&mut self, config: &Value, architecture: &mut Architecture) {
        architecture.model_type = config.get("model_type").and_then(Value::as_str).map(str::to_owned);
        if architecture.model_type.is_some() {
            self.says("architecture.model_type", "config.json", "model_type");
        }
        // A vision or audio model keeps its language part's numbers one level down.
        let inner = ["text_config", "llm_config", "language_config", "thinker_config"]
            .iter()
            .find_map(|key| config.get(key).filter(|inner| inner.is_object()));
        let mut take = |field: &str, keys: &[&str]| -> Option<u64> {
            let (at, key, value) = keys.iter().find_map(|key| {
                let plain = config.get(key).and_then(Value::as_u64).map(|value| ("", *key, value));
                plain.or_else(|| inner?.get(key)?.as_u64().map(|value| ("inner ", *key, value)))
            })?;
            self.says(&format!("architecture.{field}"), "config.json", format!("{at}{key}"));
            Some(value)
        };
        architecture.layers =
            take("layers", &["num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"]);
        architecture.hidden_size =
            take("hidden_size", &["hidden_size", "d_model", "n_embd", "dim", "model_dim"]);
        architecture.attention_heads = take(
            "attention_heads",
            &["num_attention_heads", "n_head", "n_heads", "encoder_attention_heads", "num_heads"],
        );
        architecture.key_value_heads =
            take("key_value_heads", &["num_key_value_heads", "n_kv_heads", "num_kv_heads"]);
        architecture.context_length = take(
            "context_length",
            &[
                "max_position_embeddings",
                "n_positions",
                "n_ctx",
                "max_seq_len",
                "max_sequence_length",
                "model_max_length",
                "max_target_positions",
            ],
        );
        architecture.vocabulary_size = take("vocabulary_size", &["vocab_size", "n_vocab"]);
        architecture.experts =
            take("experts", &["num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"])
                .filter(|n| *n > 0);
        architecture.experts_per_token =
            take("experts_per_token", &["num_experts_per_tok", "num_experts_per_token", "moe_topk"])
                .filter(|n| *n > 0);
    }

    fn modality(&mut self, architecture: &mut Architecture) {
        let by_task = self.front.pipeline_tag.as_deref().and_then(|task| match task {
            "text-generation" | "text2text-generation" | "fill-mask" | "translation" | "summarization" => {
                Some("text")
            }
            "image-text-to-text" | "visual-question-answering" | "image-to-text" => Some("vision-language"),
            "text-to-image" | "image-to-image" => Some("image"),
            "text-to-video" | "image-to-video" => Some("video"),
            "text-to-audio" | "audio-to-audio" => Some("audio"),
            "text-to-speech" | "automatic-speech-recognition" => Some("speech"),
            "sentence-similarity" | "feature-extraction" | "text-ranking" => Some("embedding"),
            "image-classification" | "object-detection" | "image-segmentation" | "depth-estimation" => {
                Some("vision")
            }
            _ => None,
        });
        if let Some(modality) = by_task {
            architecture.modality = Some(modality.to_owned());
            return self.says("architecture.modality", "README.md", "pipeline_tag");
        }
        if let Some(class) = self.config.as_ref().and_then(first_class) {
            let modality = by_class(&class);
            if let Some(modality) = modality {
                architecture.modality = Some(modality.to_owned());
                return self.says("architecture.modality", "config.json", "architectures");
            }
        }
        let has = |key: &str| self.config.as_ref().is_some_and(|config| config.get(key).is_some());
        let pipeline = self.model_index.is_some() || !architecture.components.is_empty();
        let found = if pipeline {
            let class = architecture.model_type.as_deref().unwrap_or_default();
            let modality = if class.contains("Video") || class.contains("I2V") {
                "video"
            } else if class.contains("Audio") {
                "audio"
            } else {
                "image"
            };
            Some((modality, "model_index.json", "_class_name"))
        } else if has("vision_config") {
            Some(("vision-language", "config.json", "vision_config"))
        } else {
            match architecture.model_type.as_deref() {
                Some("encodec" | "musicgen" | "musicgen_melody" | "audioldm2" | "dac" | "mimi") => {
                    Some(("audio", "config.json", "model_type"))
                }
                Some("whisper" | "wav2vec2" | "bark" | "speecht5" | "vits" | "kokoro") => {
                    Some(("speech", "config.json", "model_type"))
                }
                Some("bert" | "roberta" | "xlm-roberta" | "mpnet" | "nomic_bert" | "modernbert") => {
                    Some(("embedding", "config.json", "model_type"))
                }
                Some("vit" | "dinov2" | "siglip" | "swin" | "convnext") => {
                    Some(("vision", "config.json", "model_type"))
                }
                Some(_) if has("vocab_size") && has("num_hidden_layers") => {
                    Some(("text", "config.json", "vocab_size"))
                }
                _ if !self.tensors.gguf.is_empty() && architecture.vocabulary_size.is_some() => {
                    Some(("text", "GGUF header", "tokenizer.ggml.tokens"))
                }
                _ => None,
            }
        };
        if let Some((modality, file, key)) = found {
            architecture.modality = Some(modality.to_owned());
            self.says("architecture.modality", file, key);
        }
    }
}

fn first_class(config: &Value) -> Option<String> {
    config.get("architectures")?.as_array()?.first()?.as_str().map(str::to_owned)
}

fn by_class(class: &str) -> Option<&'static str> {
    if class.contains("Whisper") || class.ends_with("ForCTC") || class.contains("SpeechSeq2Seq") {
        Some("speech")
    } else if class.ends_with("ForCausalLM") {
        Some("text")
    } else if class.contains("Musicgen") || class.contains("Encodec") {
        Some("audio")
    } else if class.contains("ImageClassification") {
        Some("vision")
    } else if class.contains("VL") && class.ends_with("ForConditionalGeneration") {
        Some("vision-language")
    } else {
        None
    }
}

/// The components that `model_index.json` names: `"vae": ["diffusers", "AutoencoderKL"]`.
pub(super) fn components(index: &Value) -> Vec<String> {
    let Some(map) = index.as_object() else { return Vec::new() };
    map.iter()
        .filter(|(name, value)| {
            !name.starts_with('_')
                && value.as_array().is_some_and(|pair| pair.len() == 2 && pair.iter().all(Value::is_string))
        })
        .map(|(name, _)| name.clone())
        .collect()
}
