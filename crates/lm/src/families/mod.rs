//! Families of models, each a description of what differs. What they are checked against is mlx_lm.

mod afmoe;
mod baichuan;
mod bailing;
mod cohere;
mod dbrx;
mod deepseek;
mod ernie;
mod exaone;
mod experts;
mod gemma;
mod glm;
mod gpt;
mod gpt_oss;
mod granite;
mod internlm;
mod latent;
mod like_llama;
mod like_qwen;
mod llama;
mod minicpm;
mod mixtral;
mod nanochat;
mod olmo;
mod openelm;
mod parts;
mod phi;
mod qwen;
mod stablelm;
mod starcoder;
mod wrappers;

use serde_json::Value;

use crate::config::{Config, ConfigError};
use crate::decoder::Decoder;

/// A family: the words for it in `model_type`, and what its configs describe.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// As in `model_type`.
    pub names: &'static [&'static str],
    describe: fn(Config<'_>) -> Result<Decoder, ConfigError>,
}

/// Every family, sorted by name.
pub const FAMILIES: &[Family] = &[
    Family { names: &["afmoe"], describe: afmoe::afmoe },
    Family { names: &["apertus"], describe: like_llama::apertus },
    Family { names: &["baichuan_m1"], describe: baichuan::baichuan_m1 },
    Family { names: &["bailing_moe"], describe: bailing::bailing_moe },
    Family { names: &["cohere"], describe: cohere::cohere },
    Family { names: &["cohere2"], describe: cohere::cohere2 },
    Family { names: &["dbrx"], describe: dbrx::dbrx },
    Family { names: &["deepseek"], describe: deepseek::v1 },
    Family { names: &["deepseek_v2"], describe: deepseek::v2 },
    Family { names: &["deepseek_v3", "joyai_llm_flash", "kimi_k2"], describe: deepseek::v3 },
    Family { names: &["dots1"], describe: like_qwen::dots1 },
    Family { names: &["ernie4_5"], describe: like_llama::ernie4_5 },
    Family { names: &["ernie4_5_moe"], describe: ernie::ernie4_5_moe },
    Family { names: &["exaone"], describe: exaone::exaone },
    Family { names: &["exaone4"], describe: exaone::exaone4 },
    Family { names: &["exaone_moe"], describe: exaone::exaone_moe },
    Family { names: &["gemma"], describe: gemma::gemma },
    Family { names: &["gemma2"], describe: gemma::gemma2 },
    Family { names: &["gemma3"], describe: wrappers::gemma3 },
    Family { names: &["gemma3_text"], describe: gemma::gemma3_text },
    Family { names: &["glm"], describe: glm::glm },
    Family { names: &["glm4"], describe: glm::glm4 },
    Family { names: &["glm4_moe"], describe: glm::glm4_moe },
    Family { names: &["glm4_moe_lite"], describe: deepseek::glm4_moe_lite },
    Family { names: &["gpt2"], describe: gpt::gpt2 },
    Family { names: &["gpt_bigcode"], describe: gpt::gpt_bigcode },
    Family { names: &["gpt_neox"], describe: gpt::gpt_neox },
    Family { names: &["gpt_oss"], describe: gpt_oss::gpt_oss },
    Family { names: &["gptj"], describe: gpt::gptj },
    Family { names: &["granite"], describe: granite::granite },
    Family { names: &["granitemoe"], describe: granite::granitemoe },
    Family { names: &["helium"], describe: like_llama::helium },
    Family { names: &["hunyuan_v1_dense"], describe: like_llama::hunyuan_v1_dense },
    Family { names: &["internlm2"], describe: internlm::internlm2 },
    Family { names: &["internlm3"], describe: like_llama::internlm3 },
    Family { names: &["Klear"], describe: like_qwen::klear },
    Family { names: &["llama", "mistral", "iquestcoder", "xverse"], describe: llama::llama },
    Family { names: &["llama4_text"], describe: like_llama::llama4_text },
    Family { names: &["mellum"], describe: like_qwen::mellum },
    Family { names: &["mimo"], describe: like_llama::mimo },
    Family { names: &["minicpm"], describe: minicpm::minicpm },
    Family { names: &["minicpm3"], describe: minicpm::minicpm3 },
    Family { names: &["minimax", "minimax_m2"], describe: mixtral::minimax },
    Family { names: &["ministral3"], describe: like_llama::ministral3 },
    Family { names: &["mistral3", "llava"], describe: wrappers::mistral3 },
    Family { names: &["mistral4"], describe: deepseek::mistral4 },
    Family { names: &["mixtral"], describe: mixtral::mixtral },
    Family { names: &["nanochat"], describe: nanochat::nanochat },
    Family { names: &["nemotron"], describe: like_llama::nemotron },
    Family { names: &["olmo2"], describe: olmo::olmo2 },
    Family { names: &["olmo3"], describe: olmo::olmo3 },
    Family { names: &["olmoe"], describe: olmo::olmoe },
    Family { names: &["openelm"], describe: openelm::openelm },
    Family { names: &["phi"], describe: phi::phi },
    Family { names: &["phi3"], describe: phi::phi3 },
    Family { names: &["phimoe"], describe: mixtral::phimoe },
    Family { names: &["qwen"], describe: qwen::qwen },
    Family { names: &["qwen2"], describe: qwen::qwen2 },
    Family { names: &["qwen2_moe"], describe: qwen::qwen2_moe },
    Family { names: &["qwen2_vl", "qwen2_5_vl"], describe: wrappers::qwen2_vl },
    Family { names: &["qwen3"], describe: qwen::qwen3 },
    Family { names: &["qwen3_moe"], describe: qwen::qwen3_moe },
    Family { names: &["qwen3_vl"], describe: wrappers::qwen3_vl },
    Family { names: &["qwen3_vl_moe"], describe: wrappers::qwen3_vl_moe },
    Family { names: &["seed_oss"], describe: like_llama::seed_oss },
    Family { names: &["smollm3"], describe: llama::smollm3 },
    Family { names: &["solar_open"], describe: glm::solar_open },
    Family { names: &["stablelm"], describe: stablelm::stablelm },
    Family { names: &["starcoder2"], describe: starcoder::starcoder2 },
    Family { names: &["telechat3"], describe: like_llama::telechat3 },
    Family { names: &["youtu_llm"], describe: deepseek::youtu_llm },
];

/// The family that `model_type` names.
pub fn family_of(model_type: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.names.contains(&model_type))
}

/// What a `config.json` describes.
///
/// # Errors
/// When its family is not known, or it describes no model of it.
pub fn describe(document: &Value) -> Result<Decoder, ConfigError> {
    let config = Config::new(document)?;
    // Much that is no language model has a config.json of its own making: one that names no architecture is one that
    // is not known.
    let model_type = config.text("model_type").unwrap_or_default();
    let family = family_of(model_type).ok_or_else(|| ConfigError::UnknownFamily(model_type.to_owned()))?;
    (family.describe)(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once_and_in_order() {
        let first: Vec<String> = FAMILIES.iter().map(|family| family.names[0].to_lowercase()).collect();
        assert!(first.is_sorted(), "{first:?}");
        let mut names: Vec<&str> = FAMILIES.iter().flat_map(|family| family.names.iter().copied()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    /// Whatever a config says, nothing panics: each key of many families at odd values.
    #[test]
    fn odd_numbers_are_errors_at_worst() {
        let keys = [
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "vocab_size",
            "intermediate_size",
            "head_dim",
            "n_positions",
            "num_experts",
            "num_local_experts",
            "num_experts_per_tok",
            "moe_intermediate_size",
            "sliding_window",
            "sliding_window_pattern",
            "qk_rope_head_dim",
            "qk_nope_head_dim",
            "kv_lora_rank",
            "v_head_dim",
            "n_routed_experts",
            "n_shared_experts",
            "n_group",
            "topk_group",
            "decoder_sparse_step",
            "moe_layer_freq",
        ];
        for family in FAMILIES {
            for odd in [0.into(), 1.into(), 3.into(), (1_u64 << 40).into(), "many".into(), Value::Bool(true)]
            {
                let config: serde_json::Map<String, Value> =
                    keys.iter().map(|key| ((*key).to_owned(), Value::clone(&odd))).collect();
                let mut config = Value::Object(config);
                config["model_type"] = family.names[0].into();
                let _ = describe(&config);
                for key in ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"] {
                    config[key] = 8.into();
                }
                let _ = describe(&config);
            }
        }
    }

    #[test]
    fn names_of_models_that_see_are_the_text_models() {
        let text = serde_json::json!({
            "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 16,
            "intermediate_size": 8,
        });
        let config = serde_json::json!({ "model_type": "qwen2_5_vl", "text_config": text });
        let decoder = describe(&config).expect("a description");
        assert_eq!(decoder.family, "qwen2_vl");
        assert_eq!(decoder.name_here("model.language_model.norm.weight"), "model.norm.weight");
        assert_eq!(decoder.name_here("language_model.model.norm.weight"), "model.norm.weight");
        assert_eq!(decoder.name_here("language_model.lm_head.weight"), "lm_head.weight");
        assert_eq!(decoder.name_here("lm_head.weight"), "lm_head.weight");
    }
}
