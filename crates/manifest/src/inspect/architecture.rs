//! What a model is made of: `config.json`, `model_index.json`, a GGUF header.

use serde_json::Value;

use super::tensors::GgufFile;
use super::{Subject, gguf};
use crate::formats::gguf::GgufValue;
use crate::record::Architecture;

impl Subject<'_> {
    pub(super) fn architecture(&mut self) -> Architecture {
        let mut architecture = Architecture::default();
        if !self.tensors.gguf.is_empty() {
            self.read_gguf(&mut architecture);
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

    /// What the model's own GGUF files say, and of several only what they agree on.
    fn read_gguf(&mut self, architecture: &mut Architecture) {
        let sets = gguf::models(&self.tensors);
        let word = |set: &gguf::Set<'_>| set.head()?.header.architecture().map(str::to_owned);
        architecture.model_type = gguf::agreed(&sets, word);
        if architecture.model_type.is_none() {
            return;
        }
        let take = |key: &str| {
            gguf::agreed(&sets, |set| set.head()?.header.arch_u64(key)).filter(|number| *number > 0)
        };
        architecture.layers = take("block_count");
        architecture.hidden_size = take("embedding_length");
        architecture.attention_heads = take("attention.head_count");
        architecture.key_value_heads = take("attention.head_count_kv");
        architecture.context_length = take("context_length");
        architecture.vocabulary_size = gguf::agreed(&sets, |set| set.head()?.header.vocab_size());
        architecture.experts = take("expert_count");
        architecture.experts_per_token = take("expert_used_count");
        let path = sets.first().and_then(|set| set.head()).map(|file| file.path.clone()).unwrap_or_default();
        drop(sets);
        self.says("architecture.model_type", &path, "general.architecture");
    }

    fn read_config(&mut self, config: &Value, architecture: &mut Architecture) {
        // A component of a pipeline, alone, has a class and no type.
        for key in ["model_type", "_class_name"] {
            if let Some(word) = config.get(key).and_then(Value::as_str) {
                architecture.model_type = Some(word.to_owned());
                self.says("architecture.model_type", "config.json", key);
                break;
            }
        }
        // A vision or audio model keeps its language part's numbers one or two levels down.
        let part = |of: &'_ Value| {
            let keys = ["text_config", "llm_config", "language_config", "thinker_config"];
            keys.into_iter().find(|key| of.get(*key).is_some_and(Value::is_object))
        };
        let mut path = String::new();
        let mut inner = None;
        let mut at = config;
        while let Some(key) = part(at).filter(|_| path.matches('.').count() < 2) {
            at = &at[key];
            path = format!("{path}{key}.");
            inner = Some(at);
        }
        let mut take = |field: &str, keys: &[&str]| -> Option<u64> {
            let (at, key, value) = keys.iter().find_map(|key| {
                let plain = config.get(key).and_then(Value::as_u64).map(|value| ("", *key, value));
                plain.or_else(|| inner?.get(key)?.as_u64().map(|value| (path.as_str(), *key, value)))
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
        // What sentence-transformers saves beside a model makes vectors of what the model gives.
        let pooled = || self.model.files.iter().find(|file| file.path.starts_with("1_Pooling/"));
        let sentences = if self.has("modules.json") {
            Some("modules.json")
        } else {
            pooled().map(|file| file.path.as_str())
        };
        if let Some(file) = sentences.map(str::to_owned) {
            architecture.modality = Some("embedding".to_owned());
            return self.says("architecture.modality", &file, "sentence-transformers' modules");
        }
        let found = if self.model_index.is_some() {
            let class = architecture.model_type.as_deref().unwrap_or_default();
            by_pipeline(class).map(|modality| (modality, "model_index.json".to_owned(), "_class_name"))
        } else if let Some((file, _)) = self.tensors.metadata("mflux_version") {
            // mflux makes pictures and nothing else.
            Some(("image", file, "__metadata__.mflux_version"))
        } else if !architecture.components.is_empty() {
            None
        } else if let Some(config) = &self.config {
            by_config(config, architecture.model_type.as_deref())
                .map(|(modality, key)| (modality, "config.json".to_owned(), key))
        } else {
            None
        };
        let found = found.or_else(|| self.gguf_modality(architecture));
        if let Some((modality, file, key)) = found {
            architecture.modality = Some(modality.to_owned());
            self.says("architecture.modality", &file, key);
        }
    }
}

impl Subject<'_> {
    fn gguf_modality(&self, architecture: &Architecture) -> Option<(&'static str, String, &'static str)> {
        let sets = gguf::sets(&self.tensors);
        let model = sets.iter().find(|set| set.role == gguf::Role::Model)?.head()?;
        let word = architecture.model_type.as_deref()?;
        let told = |modality, file: &GgufFile, key| Some((modality, file.path.clone(), key));
        if model.header.arch_u64("pooling_type").is_some_and(|kind| kind > 0) {
            return told("embedding", model, "pooling_type");
        }
        let projector = sets.iter().find(|set| set.role == gguf::Role::Projector).and_then(|set| set.head());
        let Some(projector) = projector else {
            let speaks = architecture.vocabulary_size.is_some()
                && !word.contains("bert")
                && !word.ends_with("encoder");
            return if speaks { told("text", model, "tokenizer.ggml.tokens") } else { None };
        };
        let has = |key: &str| projector.header.metadata.get(key).map(|value| *value == GgufValue::Bool(true));
        // Old converters knew pictures alone, and said nothing.
        let sees = has("clip.has_vision_encoder").unwrap_or(has("clip.has_audio_encoder") != Some(true));
        if sees { told("vision-language", projector, "general.architecture") } else { None }
    }
}

fn first_class(config: &Value) -> Option<String> {
    config.get("architectures")?.as_array()?.first()?.as_str().map(str::to_owned)
}

/// What a configuration says of what goes in and out, and by which key.
fn by_config(config: &Value, model_type: Option<&str>) -> Option<(&'static str, &'static str)> {
    let class = first_class(config);
    let class = class.as_deref().unwrap_or_default();
    let has = |key: &str| match config.get(key) {
        Some(Value::String(text)) => !text.is_empty(),
        Some(value) => !value.is_null(),
        None => false,
    };
    if class.contains("Whisper") || class.ends_with("ForCTC") || class.contains("SpeechSeq2Seq") {
        return Some(("speech", "architectures"));
    }
    // Before the class: many that read pictures are called `…ForCausalLM` like those that read text alone.
    let any = |words: &[&str]| words.iter().any(|word| class.contains(word));
    let speaks = class.is_empty()
        || has("llm_config")
        || any(&["ForCausalLM", "ForConditionalGeneration", "Vision2Seq", "VLChat", "MiniCPMV"]);
    for key in ["vision_config", "img_processor", "mm_vision_tower"] {
        if has(key) {
            // What does not speak, such as a CLIP, is neither.
            return speaks.then_some(("vision-language", key));
        }
    }
    if speaks && any(&["VL", "Llava", "Vision"]) {
        return Some(("vision-language", "architectures"));
    }
    // What hears and answers in text has no word of its own.
    if has("audio_config") || has("audio_processor") || any(&["Omni", "MMFor", "Multimodal"]) {
        return None;
    }
    if class.ends_with("ForCausalLM") || class.ends_with("ForMaskedLM") {
        return Some(("text", "architectures"));
    } else if class.contains("Musicgen") || class.contains("Encodec") {
        return Some(("audio", "architectures"));
    } else if class.contains("ImageClassification") {
        return Some(("vision", "architectures"));
    }
    match model_type? {
        "encodec" | "musicgen" | "musicgen_melody" | "audioldm2" | "dac" | "mimi" => {
            Some(("audio", "model_type"))
        }
        "whisper" | "wav2vec2" | "bark" | "speecht5" | "vits" | "kokoro" => Some(("speech", "model_type")),
        // They give vectors, of which any task can be made.
        "bert" | "roberta" | "xlm-roberta" | "mpnet" | "nomic_bert" | "modernbert" => None,
        "vit" | "dinov2" | "siglip" | "swin" | "convnext" => Some(("vision", "model_type")),
        _ if has("vocab_size") && has("num_hidden_layers") => Some(("text", "vocab_size")),
        _ => None,
    }
}

/// What a pipeline of diffusers makes, by its class.
fn by_pipeline(class: &str) -> Option<&'static str> {
    let any = |words: &[&str]| words.iter().any(|word| class.contains(word));
    if class.contains("TextToImage") || class.contains("Text2Image") {
        Some("image")
    } else if any(&[
        "Video",
        "I2V",
        "T2V",
        "V2V",
        "Wan",
        "LTX",
        "Mochi",
        "Allegro",
        "AnimateDiff",
        "SkyReels",
        "Latte",
        "VACE",
        "Cosmos",
        "EasyAnimate",
        "ConsisID",
    ]) {
        Some("video")
    } else if any(&["Audio", "Music", "DanceDiffusion", "Spectrogram"]) {
        Some("audio")
    } else if any(&[
        "StableDiffusion",
        "StableCascade",
        "Flux",
        "Image",
        "Img2Img",
        "Inpaint",
        "Kandinsky",
        "PixArt",
        "Sana",
        "HunyuanDiT",
        "AuraFlow",
        "Lumina",
        "Chroma",
        "HiDream",
        "Kolors",
        "CogView",
        "OmniGen",
        "Bria",
        "Amused",
        "Wuerstchen",
        "LatentConsistency",
        "UnCLIP",
        "DDPM",
        "DDIM",
        "LDM",
        "IFPipeline",
        "ControlNet",
    ]) {
        Some("image")
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
