//! Language models as `mlx_lm` saves them.

use serde_json::{Map, Value, json};

use super::{Card, json_file, tokenizer};
use crate::files::Files;
use crate::safetensors::{Dtype, Tensor, encode};

/// How a model's weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quant {
    /// Not quantized, 32 bits a weight.
    F32,
    /// Not quantized, half precision.
    F16,
    /// Not quantized, bfloat16.
    Bf16,
    /// MLX's affine quantization: packed integers with a scale and a bias a group.
    Affine {
        /// Bits a weight: 2, 3, 4, 5, 6 or 8.
        bits: usize,
        /// Weights a group: 32, 64 or 128.
        group: usize,
    },
    /// Microscaling 4-bit floats, groups of 32 with an 8-bit exponent.
    Mxfp4,
    /// Microscaling 8-bit floats, groups of 32 with an 8-bit exponent.
    Mxfp8,
    /// NVIDIA's 4-bit floats, groups of 16 with an 8-bit float scale.
    Nvfp4,
    /// Affine in groups of 64, `low` bits in general and `high` for the embedding, the head and `v_proj`.
    Mixed {
        /// Bits of most layers.
        low: usize,
        /// Bits of the others.
        high: usize,
    },
}

impl Quant {
    /// Group size, bits and mode, as the config names them.
    fn scheme(self) -> Option<(usize, usize, &'static str)> {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => None,
            Self::Affine { bits, group } => Some((group, bits, "affine")),
            Self::Mixed { low, .. } => Some((64, low, "affine")),
            Self::Mxfp4 => Some((32, 4, "mxfp4")),
            Self::Mxfp8 => Some((32, 8, "mxfp8")),
            Self::Nvfp4 => Some((16, 4, "nvfp4")),
        }
    }

    const fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            _ => Dtype::BF16,
        }
    }
}

/// A small language model; [`ModelSpec::files`] makes it.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    family: String,
    quant: Quant,
    hidden: usize,
    layers: usize,
    vocab: usize,
    shards: usize,
    tied: bool,
    seed: u64,
    card: bool,
    library: String,
    license: String,
    base_model: Option<String>,
    relation: Option<String>,
    pipeline: Option<String>,
    tags: Vec<String>,
    extra: Vec<(String, Value)>,
}

/// One linear layer or embedding: name, rows, columns.
pub(super) type Linear = (String, usize, usize);

impl ModelSpec {
    /// A model of this `model_type`: 64 wide, two layers, 256 tokens, bfloat16, one file, a head of its own.
    pub fn new(family: &str) -> Self {
        Self {
            family: family.to_owned(),
            quant: Quant::Bf16,
            hidden: 64,
            layers: 2,
            vocab: 256,
            shards: 1,
            tied: false,
            seed: 0,
            card: true,
            library: "mlx".to_owned(),
            license: "apache-2.0".to_owned(),
            base_model: None,
            relation: None,
            pipeline: None,
            tags: vec!["mlx".to_owned()],
            extra: Vec::new(),
        }
    }

    /// [`ModelSpec::new`] with `llama`.
    pub fn llama() -> Self {
        Self::new("llama")
    }

    /// Sets how the weights are stored.
    #[must_use]
    pub const fn quant(mut self, quant: Quant) -> Self {
        self.quant = quant;
        self
    }

    /// Sets the width; it is rounded up to a multiple of the quantization's group and of 32.
    #[must_use]
    pub const fn hidden(mut self, hidden: usize) -> Self {
        self.hidden = hidden;
        self
    }

    /// Sets the number of layers.
    #[must_use]
    pub const fn layers(mut self, layers: usize) -> Self {
        self.layers = layers;
        self
    }

    /// Sets the size of the vocabulary.
    #[must_use]
    pub const fn vocab(mut self, vocab: usize) -> Self {
        self.vocab = vocab;
        self
    }

    /// Sets the number of weight files.
    #[must_use]
    pub const fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// Uses the embedding as the head.
    #[must_use]
    pub const fn tied(mut self, tied: bool) -> Self {
        self.tied = tied;
        self
    }

    /// Sets where the pseudo-random weights start: another seed is another model with the same files.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Leaves the README out.
    #[must_use]
    pub const fn without_readme(mut self) -> Self {
        self.card = false;
        self
    }

    /// Sets `library_name` of the README.
    #[must_use]
    pub fn library(mut self, library: &str) -> Self {
        library.clone_into(&mut self.library);
        self
    }

    /// Sets `license` of the README.
    #[must_use]
    pub fn license(mut self, license: &str) -> Self {
        license.clone_into(&mut self.license);
        self
    }

    /// Sets `base_model` of the README.
    #[must_use]
    pub fn base_model(mut self, id: &str) -> Self {
        self.base_model = Some(id.to_owned());
        self
    }

    /// Sets `base_model_relation` of the README: `quantized`, `finetune`, `adapter` or `merge`.
    #[must_use]
    pub fn relation(mut self, relation: &str) -> Self {
        self.relation = Some(relation.to_owned());
        self
    }

    /// Sets `pipeline_tag` of the README.
    #[must_use]
    pub fn pipeline(mut self, pipeline: &str) -> Self {
        self.pipeline = Some(pipeline.to_owned());
        self
    }

    /// Sets `tags` of the README; the default is `mlx` alone.
    #[must_use]
    pub fn tags(mut self, tags: &[&str]) -> Self {
        self.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        self
    }

    /// Sets one more key of `config.json`, such as `torch_dtype`; it replaces what is there.
    #[must_use]
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.extra.push((key.to_owned(), value));
        self
    }

    /// The files, sorted by path.
    pub fn files(&self) -> Files {
        let mut out = vec![json_file("config.json", &self.config_json())];
        if self.card {
            out.push(self.readme());
        }
        out.extend(tokenizer(self.vocab));
        out.extend(self.weights());
        out.sort();
        out
    }

    pub(super) fn readme(&self) -> (String, Vec<u8>) {
        Card {
            library: &self.library,
            license: &self.license,
            base_model: self.base_model.as_deref(),
            relation: self.relation.as_deref(),
            pipeline: self.pipeline.as_deref(),
            tags: &self.tags,
            title: "random weights",
        }
        .file()
    }

    pub(super) const fn model_seed(&self) -> u64 {
        self.seed
    }

    /// The width after rounding.
    pub(super) fn width(&self) -> usize {
        let group = self.quant.scheme().map_or(32, |(group, ..)| group.max(32));
        self.hidden.next_multiple_of(group)
    }

    fn architecture(&self) -> String {
        let name = match self.family.as_str() {
            "gemma3_text" => "Gemma3".to_owned(),
            family => family
                .split('_')
                .map(|part| part[..1].to_ascii_uppercase() + &part[1..])
                .collect::<Vec<_>>()
                .concat(),
        };
        format!("{name}ForCausalLM")
    }

    pub(super) fn config_json(&self) -> Value {
        let hidden = self.width();
        let mut config = json!({
            "architectures": [self.architecture()],
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "max_position_embeddings": 2048,
            "model_type": self.family,
            "num_attention_heads": hidden / 32,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": (hidden / 64).max(1),
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": self.tied,
            "vocab_size": self.vocab,
        });
        if self.family == "qwen3" {
            config["head_dim"] = json!(32);
        }
        if let Some((group, bits, mode)) = self.quant.scheme() {
            let mut scheme = json!({"group_size": group, "bits": bits, "mode": mode});
            if let Quant::Mixed { high, .. } = self.quant {
                for (name, ..) in self.linears().iter().filter(|(name, ..)| is_high(name)) {
                    scheme[name] = json!({"group_size": group, "bits": high});
                }
            }
            config["quantization"] = scheme.clone();
            config["quantization_config"] = scheme;
        }
        for (key, value) in &self.extra {
            config[key] = value.clone();
        }
        config
    }

    /// Every layer that a quantization applies to.
    pub(super) fn linears(&self) -> Vec<Linear> {
        let hidden = self.width();
        let kv = (hidden / 64).max(1) * 32;
        let mut out = vec![("model.embed_tokens".to_owned(), self.vocab, hidden)];
        for layer in 0..self.layers {
            for (name, rows, columns) in [
                ("self_attn.q_proj", hidden, hidden),
                ("self_attn.k_proj", kv, hidden),
                ("self_attn.v_proj", kv, hidden),
                ("self_attn.o_proj", hidden, hidden),
                ("mlp.gate_proj", 2 * hidden, hidden),
                ("mlp.up_proj", 2 * hidden, hidden),
                ("mlp.down_proj", hidden, 2 * hidden),
            ] {
                out.push((format!("model.layers.{layer}.{name}"), rows, columns));
            }
        }
        if !self.tied {
            out.push(("lm_head".to_owned(), self.vocab, hidden));
        }
        out
    }

    /// The tensors that no quantization touches: norms, and the biases of some families.
    pub(super) fn others(&self, dtype: Dtype) -> Vec<Tensor> {
        let hidden = self.width();
        let norm =
            |name: String, width: usize| Tensor::new(name, dtype, &[width]).random(self.seed, 0.9, 1.1);
        let mut out = vec![norm("model.norm.weight".to_owned(), hidden)];
        for layer in 0..self.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            out.push(norm(name("input_layernorm.weight"), hidden));
            out.push(norm(name("post_attention_layernorm.weight"), hidden));
            if self.family == "qwen3" {
                out.push(norm(name("self_attn.q_norm.weight"), 32));
                out.push(norm(name("self_attn.k_norm.weight"), 32));
            }
            if self.family == "qwen2" {
                for (part, width) in
                    [("q", hidden), ("k", (hidden / 64).max(1) * 32), ("v", (hidden / 64).max(1) * 32)]
                {
                    let bias = Tensor::new(name(&format!("self_attn.{part}_proj.bias")), dtype, &[width]);
                    out.push(bias.random(self.seed, -0.05, 0.05));
                }
            }
        }
        out
    }

    /// The tensors of one layer.
    fn layer(&self, (name, rows, columns): &Linear) -> Vec<Tensor> {
        let named = |part: &str| format!("{name}.{part}");
        let Some((group, mut bits, mode)) = self.quant.scheme() else {
            let weight = Tensor::new(named("weight"), self.quant.dtype(), &[*rows, *columns]);
            return vec![weight.random(self.seed, -0.05, 0.05)];
        };
        if let Quant::Mixed { high, .. } = self.quant
            && is_high(name)
        {
            bits = high;
        }
        let groups = [*rows, columns / group];
        let weight = Tensor::new(named("weight"), Dtype::U32, &[*rows, columns * bits / 32])
            .random(self.seed, 0.0, 0.0);
        let scales = named("scales");
        match mode {
            "affine" => {
                // So that the weights come out between -0.05 and 0.05.
                let step = 0.1 / (1_u32 << bits) as f32;
                vec![
                    Tensor::new(named("biases"), Dtype::BF16, &groups).random(self.seed, -0.052, -0.048),
                    Tensor::new(scales, Dtype::BF16, &groups).random(self.seed, 0.9 * step, step),
                    weight,
                ]
            }
            // 8-bit exponents with a bias of 127: about 2^-7 for values up to 6, about 2^-4 for values below 2.
            "mxfp4" => vec![Tensor::new(scales, Dtype::U8, &groups).random(self.seed, 119.0, 121.0), weight],
            "mxfp8" => vec![
                Tensor::new(scales, Dtype::U8, &groups).random(self.seed, 122.0, 124.0),
                // Without the top exponent bit, so that none is NaN.
                Tensor { dtype: Dtype::U32, ..weight }.bytes(finite_fp8(self.seed, name, rows * columns)),
            ],
            // E4M3 with a bias of 7, about 2^-6.
            _ => vec![Tensor::new(scales, Dtype::U8, &groups).random(self.seed, 4.0, 12.0), weight],
        }
    }

    /// The weight files and their index.
    fn weights(&self) -> Files {
        let mut tensors: Vec<Tensor> = self.linears().iter().flat_map(|linear| self.layer(linear)).collect();
        tensors.extend(self.others(self.quant.dtype()));
        let parameters: usize = self.linears().iter().map(|(_, rows, columns)| rows * columns).sum::<usize>()
            + self.others(self.quant.dtype()).iter().map(Tensor::elements).sum::<usize>();
        sharded(tensors, self.shards, parameters, "mlx")
    }
}

fn is_high(name: &str) -> bool {
    name.ends_with("embed_tokens") || name.ends_with("lm_head") || name.ends_with("v_proj")
}

fn finite_fp8(seed: u64, name: &str, len: usize) -> Vec<u8> {
    crate::rng::Rng::named(seed, name).bytes(len).into_iter().map(|byte| byte & 0xbf).collect()
}

/// The tensors in `shards` files of about the same number of tensors, with an index.
pub(super) fn sharded(mut tensors: Vec<Tensor>, shards: usize, parameters: usize, format: &str) -> Files {
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let total: u64 = tensors.iter().map(Tensor::byte_len).sum();
    let per_shard = tensors.len().div_ceil(shards.max(1));
    let count = tensors.len().div_ceil(per_shard);
    let mut weight_map = Map::new();
    let mut out = Files::new();
    for (index, shard) in tensors.chunks(per_shard).enumerate() {
        let file = if count == 1 {
            "model.safetensors".to_owned()
        } else {
            format!("model-{:05}-of-{count:05}.safetensors", index + 1)
        };
        for tensor in shard {
            weight_map.insert(tensor.name.clone(), json!(file));
        }
        out.push((file, encode(shard, &[("format", format)])));
    }
    let index = json!({
        "metadata": {"total_size": total, "total_parameters": parameters}, "weight_map": weight_map,
    });
    out.push(json_file("model.safetensors.index.json", &index));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::safetensors::parse_header;

    fn find<'a>(files: &'a Files, path: &str) -> &'a [u8] {
        &files.iter().find(|(name, _)| name == path).expect("the file is there").1
    }

    fn tensor(spec: &ModelSpec, name: &str) -> (String, Vec<u64>) {
        let files = spec.files();
        let map = parse_header(find(&files, "model.safetensors")).expect("a valid file");
        let shape =
            map[name]["shape"].as_array().expect("a shape").iter().filter_map(Value::as_u64).collect();
        (map[name]["dtype"].as_str().expect("a type").to_owned(), shape)
    }

    #[test]
    fn quantized_layers_have_the_shapes_of_mlx() {
        let embed = "model.embed_tokens.weight";
        for (bits, columns) in [(2, 4), (3, 6), (4, 8), (5, 10), (6, 12), (8, 16)] {
            let spec = ModelSpec::llama().quant(Quant::Affine { bits, group: 32 });
            assert_eq!(tensor(&spec, embed), ("U32".to_owned(), vec![256, columns]));
            assert_eq!(tensor(&spec, "model.embed_tokens.scales"), ("BF16".to_owned(), vec![256, 2]));
            assert_eq!(tensor(&spec, "lm_head.biases"), ("BF16".to_owned(), vec![256, 2]));
        }
        let wide = ModelSpec::llama().quant(Quant::Affine { bits: 4, group: 128 });
        assert_eq!(tensor(&wide, embed).1, [256, 16]);
        for (quant, columns, groups) in [(Quant::Mxfp4, 8, 2), (Quant::Mxfp8, 16, 2), (Quant::Nvfp4, 8, 4)] {
            let spec = ModelSpec::llama().quant(quant);
            assert_eq!(tensor(&spec, embed), ("U32".to_owned(), vec![256, columns]));
            assert_eq!(tensor(&spec, "model.embed_tokens.scales"), ("U8".to_owned(), vec![256, groups]));
            let files = spec.files();
            let map = parse_header(find(&files, "model.safetensors")).expect("a valid file");
            assert!(!map.contains_key("model.embed_tokens.biases"));
        }
    }

    #[test]
    fn a_mixed_model_says_which_layers_differ() {
        let spec = ModelSpec::llama().quant(Quant::Mixed { low: 4, high: 8 });
        let config = spec.config_json();
        assert_eq!(config["quantization"], config["quantization_config"]);
        assert_eq!(config["quantization"]["bits"], 4);
        assert_eq!(config["quantization"]["lm_head"], json!({"bits": 8, "group_size": 64}));
        assert_eq!(config["quantization"].as_object().expect("an object").len(), 3 + 4);
        assert_eq!(tensor(&spec, "model.layers.1.self_attn.v_proj.weight").1, [32, 16]);
        assert_eq!(tensor(&spec, "model.layers.1.self_attn.q_proj.weight").1, [64, 8]);
    }

    #[test]
    fn shards_and_their_index_agree() {
        let files = ModelSpec::new("qwen2").tied(true).shards(3).files();
        let index: Value =
            serde_json::from_slice(find(&files, "model.safetensors.index.json")).expect("JSON");
        let map = index["weight_map"].as_object().expect("a map");
        assert!(!map.contains_key("lm_head.weight"));
        assert!(map.contains_key("model.layers.0.self_attn.q_proj.bias"));
        let mut total = 0;
        for (name, file) in map {
            let bytes = find(&files, file.as_str().expect("a name"));
            let header = parse_header(bytes).expect("a valid file");
            let offsets = &header[name]["data_offsets"];
            total += offsets[1].as_u64().expect("an offset") - offsets[0].as_u64().expect("an offset");
        }
        assert_eq!(index["metadata"]["total_size"], total);
        assert_eq!(files.iter().filter(|(name, _)| name.ends_with("of-00003.safetensors")).count(), 3);
    }

    #[test]
    fn a_seed_changes_the_weights_alone() {
        let (one, two) = (ModelSpec::llama().files(), ModelSpec::llama().seed(1).files());
        let changed: Vec<&str> =
            one.iter().zip(&two).filter(|(a, b)| a != b).map(|((path, _), _)| path.as_str()).collect();
        assert_eq!(changed, ["model.safetensors"]);
        assert_eq!(one, ModelSpec::llama().files());
    }

    #[test]
    fn the_card_has_front_matter() {
        let files =
            ModelSpec::llama().base_model("acme/base").relation("quantized").tags(&["mlx", "chat"]).files();
        let readme = String::from_utf8(find(&files, "README.md").to_vec()).expect("text");
        assert_eq!(
            readme,
            "---\nlibrary_name: mlx\nlicense: apache-2.0\nbase_model: acme/base\nbase_model_relation: quantized\n\
             tags:\n- mlx\n- chat\n---\n# random weights\n"
        );
    }
}
