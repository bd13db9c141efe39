//! How wide what a quantized matrix reads is, told by tensors that are not packed.
//!
//! A packed matrix shows its rows, and the product of bits and group size; four bits in groups of 64 and eight in
//! groups of 32 look the same. The width of its input settles it, and some other tensor of the same block has that
//! width: the norm before it, or the rows of the matrix that it follows. What is wrong by a factor of two would prove
//! the wrong bits, so what is certain is told apart from what is only likely, and where two tensors disagree nothing is
//! said.

mod names;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::tensors::{WeightFile, all};
use crate::formats::safetensors::TensorInfo;
use names::{ATTENTIONS, NORMS, READ_HIDDEN, WRITE_HIDDEN, block_of, is_at_end, is_tower, reads_elsewhere};

/// How wide what a matrix reads is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reads {
    /// Proved.
    pub(super) sure: Option<u64>,
    /// Usual, and no proof: a gate beside it may double it.
    pub(super) likely: Option<u64>,
}

impl Reads {
    fn sure(width: Option<u64>) -> Self {
        Reads { sure: width, likely: None }
    }

    fn likely(width: Option<u64>) -> Self {
        Reads { sure: None, likely: width }
    }
}

pub(super) struct Widths<'a> {
    tensors: HashMap<(&'a str, &'a str), &'a TensorInfo>,
    /// What the matrices of a block that write into its hidden state have for rows.
    written: BTreeMap<(&'a str, &'a str), BTreeSet<u64>>,
    /// Attention heads and key-value heads, as the configuration counts them for the language model.
    heads: Option<(u64, u64)>,
    /// The hidden size, where the configuration has one that holds for every part of the model.
    hidden: Option<u64>,
}

impl<'a> Widths<'a> {
    pub(super) fn new(files: &[&'a WeightFile], config: Option<&Value>) -> Self {
        let mut tensors = HashMap::new();
        let mut written: BTreeMap<(&str, &str), BTreeSet<u64>> = BTreeMap::new();
        for (file, tensor) in all(files) {
            tensors.insert((file.component(), &*tensor.name), tensor);
            if let Some(module) = tensor.name.strip_suffix(".weight")
                && WRITE_HIDDEN.iter().any(|name| is_at_end(module, name))
                && let (Some(block), Some(rows)) = (block_of(module), rows(tensor))
            {
                written.entry((file.component(), block)).or_default().insert(rows);
            }
        }
        let text = config.and_then(|config| config.get("text_config"));
        let in_part =
            |part: Option<&Value>, keys: &[&str]| keys.iter().find_map(|key| part?.get(key)?.as_u64());
        let heads_of = |part: Option<&Value>| {
            let heads = in_part(part, &["num_attention_heads"]).filter(|heads| *heads > 0)?;
            let shared = in_part(part, &["num_key_value_heads"]).filter(|heads| *heads > 0);
            Some((heads, shared.unwrap_or(heads)))
        };
        let one_part = config.is_some_and(|config| {
            config.as_object().is_some_and(|map| {
                !map.keys().any(|key| key.ends_with("_config") && key != "quantization_config")
            })
        });
        let hidden = in_part(config, &["hidden_size", "d_model", "n_embd", "dim"]).filter(|_| one_part);
        Widths { tensors, written, heads: heads_of(text).or_else(|| heads_of(config)), hidden }
    }

    /// The width of what `module` of this component reads.
    pub(super) fn of(&self, component: &str, module: &str) -> Reads {
        let (parent, name) = module.rsplit_once('.').unwrap_or(("", module));
        let rows_of = |name: &str| self.rows(component, &join(parent, name));
        match name {
            "embed_tokens" => Reads::sure(self.norm(component, &[&join(parent, "norm.weight")])),
            "lm_head" => {
                let norms = ["model.norm.weight", "norm.weight", "model.language_model.norm.weight"];
                let norms = norms.map(|norm| join(parent, norm));
                Reads::sure(self.norm(component, &[&norms[0], &norms[1], &norms[2]]))
            }
            "down_proj" => {
                let apart = same(rows_of("up_proj"), rows_of("gate_proj"));
                let fused = || rows_of("gate_up_proj").filter(|n| n % 2 == 0).map(|n| n / 2);
                Reads::sure(apart.or_else(fused))
            }
            "w2" => Reads::sure(same(rows_of("w3"), rows_of("w1"))),
            "fc2" => Reads::likely(rows_of("fc1")),
            "mlp2" => Reads::likely(rows_of("mlp1")),
            // A gate beside it doubles the rows; as many as four times the width are without one.
            "linear2" => {
                Reads::likely(rows_of("linear1").filter(|n| Some(*n) == four_times(rows_of("linear2"))))
            }
            "2" if is_at_end(parent, "net") => {
                Reads::likely(rows_of("0.proj").filter(|n| Some(*n) == four_times(rows_of("2"))))
            }
            "q_b_proj" => Reads::sure(self.norm(component, &[&join(parent, "q_a_layernorm.weight")])),
            "kv_b_proj" | "unembed_out" => {
                Reads::sure(self.norm(component, &[&join(parent, "kv_a_layernorm.weight")]))
            }
            "embed_q" => Reads::sure(self.unrotated(component, parent)),
            "proj" if is_at_end(parent, "net.0") => {
                self.hidden_state(component, parent.strip_suffix(".0").unwrap_or(parent), module)
            }
            "0" if is_at_end(parent, "to_out") => {
                self.attention(component, parent.strip_suffix("to_out").unwrap_or(""), "to_out.0", module)
            }
            _ if READ_HIDDEN.contains(&name) => self.hidden_state(component, parent, module),
            _ if ATTENTIONS.iter().any(|(out, _)| *out == name) => {
                self.attention(component, parent, name, module)
            }
            _ => Reads::default(),
        }
    }

    fn rows(&self, component: &str, module: &str) -> Option<u64> {
        rows(self.tensors.get(&(component, &*format!("{module}.weight")))?)
    }

    fn get(&self, component: &str, parent: &str, name: &str) -> Option<&'a TensorInfo> {
        self.tensors.get(&(component, &*join(parent, name))).copied()
    }

    /// The length of the first of these norms that is there.
    fn norm(&self, component: &str, names: &[&str]) -> Option<u64> {
        names.iter().find_map(|name| match self.tensors.get(&(component, *name))?.shape[..] {
            [length] => Some(length),
            _ => None,
        })
    }

    /// The width of the hidden state that a matrix of `parent` reads.
    fn hidden_state(&self, component: &str, parent: &str, module: &str) -> Reads {
        if reads_elsewhere(parent) {
            return Reads::default();
        }
        let configured = || self.hidden.filter(|_| !is_tower(module));
        let Some(block) = block_of(module) else { return Reads::likely(configured()) };
        let writes = WRITE_HIDDEN.iter().map(|name| {
            let name = if is_at_end(parent, "net") { name.strip_prefix("net.")? } else { name };
            self.rows(component, &join(parent, name))
        });
        let beside: BTreeSet<u64> = writes.flatten().collect();
        let beside = || if beside.len() > 1 { Err(()) } else { Ok(beside.first().copied()) };
        match (self.nearest_norms(component, parent, block), beside()) {
            (Ok(Some(norm)), Ok(Some(written))) if norm != written => Reads::default(),
            (Ok(Some(norm)), Ok(_)) => Reads::sure(Some(norm)),
            (Ok(None), Ok(Some(written))) => Reads::likely(Some(written)),
            (Ok(None), Ok(None)) => {
                let written = self.written.get(&(component, block));
                match written.map(|widths| (widths.len(), widths.first().copied())) {
                    Some((1, width)) => Reads::likely(width),
                    Some(_) => Reads::default(),
                    None => Reads::likely(configured()),
                }
            }
            (Err(()), _) | (_, Err(())) => Reads::default(),
        }
    }

    /// The length of the norms that stand nearest: beside the matrix, else further out, up to its block.
    fn nearest_norms(&self, component: &str, parent: &str, block: &str) -> Result<Option<u64>, ()> {
        let mut at = parent;
        loop {
            let mut names = NORMS.to_vec();
            if at == block {
                names.push("norm");
            }
            let lengths: BTreeSet<u64> = names
                .iter()
                .filter_map(|name| self.norm(component, &[&join(at, &format!("{name}.weight"))]))
                .collect();
            match (lengths.len(), lengths.first()) {
                (0, _) => {}
                (1, length) => return Ok(length.copied()),
                _ => return Err(()),
            }
            match at.rsplit_once('.') {
                Some((outer, _)) if at.len() > block.len() => at = outer,
                _ => return Ok(None),
            }
        }
    }

    /// What all heads of an attention give, in a row: what its matrix `out` reads.
    fn attention(&self, component: &str, parent: &str, out: &str, module: &str) -> Reads {
        let parent = parent.trim_end_matches('.');
        let rows_of = |name: &str| self.rows(component, &join(parent, name));
        // Latent attention: `unembed_out` is heads x head width x rank.
        if let Some(out) = self.get(component, parent, "unembed_out.weight") {
            return Reads::sure(match out.shape[..] {
                [heads, width, _] => heads.checked_mul(width),
                _ => None,
            });
        }
        let heads = self.heads.filter(|_| !is_tower(module));
        if let Some(all) = rows_of("qkv_proj") {
            let given = heads.and_then(|(heads, shared)| {
                let each = heads.checked_add(shared.checked_mul(2)?)?;
                (all % each == 0).then(|| all / each * heads)
            });
            return Reads::sure(given);
        }
        let names = ATTENTIONS.iter().filter(|(name, _)| *name == out);
        let Some((queries, values)) =
            names.into_iter().find_map(|(_, [q, _, v])| Some((rows_of(q)?, rows_of(v)?)))
        else {
            return Reads::default();
        };
        // As many values as queries: neither are heads shared nor is there a gate beside the queries.
        if queries == values {
            return Reads::sure(Some(values));
        }
        match heads {
            // Twice as many rows as there should be are a gate beside the queries: then nothing is certain.
            Some((heads, shared)) => {
                let given = (values % shared == 0).then(|| heads.checked_mul(values / shared)).flatten();
                Reads::sure(given.filter(|given| queries == *given))
            }
            None => Reads::likely(Some(queries)),
        }
    }

    /// The part of a latent attention's query head that is not rotated.
    fn unrotated(&self, component: &str, parent: &str) -> Option<u64> {
        let get = |name: &str| self.get(component, parent, name);
        let heads = *get("embed_q.weight")?.shape.first().filter(|heads| **heads > 0)?;
        let rank = self.norm(component, &[&join(parent, "kv_a_layernorm.weight")])?;
        let rotated = rows(get("kv_a_proj_with_mqa.weight")?)?.checked_sub(rank)?;
        let queries = rows(get("q_b_proj.weight").or_else(|| get("q_proj.weight"))?)?;
        (queries % heads == 0).then(|| (queries / heads).checked_sub(rotated)).flatten()
    }
}

/// Rows of a matrix, or of each matrix of a stack: packing leaves them as they are.
fn rows(tensor: &TensorInfo) -> Option<u64> {
    tensor.shape.len().checked_sub(2).map(|at| tensor.shape[at])
}

fn four_times(width: Option<u64>) -> Option<u64> {
    width?.checked_mul(4)
}

/// What both say, or the one that says something.
fn same(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => (one == other).then_some(one),
        (one, other) => one.or(other),
    }
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}
