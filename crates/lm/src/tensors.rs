//! Which tensors a decoder needs, and whether a checkpoint has them: told from names and shapes alone.

use crate::decoder::{
    Attention, Decoder, Experts, GateUp, Gated, Latent, LatentQuery, LatentUp, Layer, Linear, Mix, Mlp, Norm,
    NormKind, QkNorm, Qkv, Residual,
};

/// A tensor, or a packed one's three, that a decoder needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Its name without the last part; for a vector the whole.
    pub name: String,
    /// Its shape where it is not packed.
    pub shape: Vec<usize>,
    /// What it is.
    pub kind: NeedKind,
}

/// Kinds of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeedKind {
    /// `name.weight`, `[…, out, in]`; or packed: `name.weight` with fewer columns, `name.scales` and mostly
    /// `name.biases`.
    Matrix,
    /// As it is named.
    Vector,
}

/// What a checkpoint lacks, or has in another shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// It is not there.
    Missing(String),
    /// It has another shape.
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        have: Vec<usize>,
        /// The shape that is needed, unpacked.
        want: Vec<usize>,
    },
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Mismatch::Missing(name) => write!(f, "the tensor `{name}` is not there"),
            Mismatch::Shape { name, have, want } => {
                write!(
                    f,
                    "the tensor `{name}` has the shape {have:?}, and {want:?} is needed (before packing)"
                )
            }
        }
    }
}

/// What a checkpoint lacks of a decoder's tensors, at most `most` of them. `shape` gives a tensor's shape by the name
/// that the description has for it.
pub fn compare(decoder: &Decoder, most: usize, shape: impl Fn(&str) -> Option<Vec<usize>>) -> Vec<Mismatch> {
    let mut wrong = Vec::new();
    let mut check = |need: Need| {
        if wrong.len() < most {
            wrong.extend(need.check(&shape));
        }
    };
    let has = |name: &str| shape(name).is_some();
    let mut look = Look { need: &mut check, has: &has };
    look.decoder(decoder);
    wrong
}

impl Need {
    fn check(&self, shape: &impl Fn(&str) -> Option<Vec<usize>>) -> Option<Mismatch> {
        let (want, name) = match self.kind {
            NeedKind::Vector => (&self.shape, self.name.clone()),
            NeedKind::Matrix => (&self.shape, format!("{}.weight", self.name)),
        };
        let Some(have) = shape(&name) else { return Some(Mismatch::Missing(name)) };
        let wrong = |name: String, have: Vec<usize>| Some(Mismatch::Shape { name, have, want: want.clone() });
        if have == *want {
            return None;
        }
        let scales_name = format!("{}.scales", self.name);
        let scales = (self.kind == NeedKind::Matrix).then(|| shape(&scales_name)).flatten();
        let Some(scales) = scales else { return wrong(name, have) };
        let (Some((packed, lead)), Some((input, want_lead))) = (have.split_last(), want.split_last()) else {
            return wrong(name, have);
        };
        if lead != want_lead || *input == 0 || packed * 32 % input != 0 {
            return wrong(name, have);
        }
        match scales.split_last() {
            Some((groups, lead)) if lead == want_lead && *groups > 0 && input % groups == 0 => None,
            _ => wrong(scales_name, scales),
        }
    }
}

/// A walk over a decoder.
struct Look<'a> {
    need: &'a mut dyn FnMut(Need),
    has: &'a dyn Fn(&str) -> bool,
}

impl Look<'_> {
    fn matrix(&mut self, name: &str, shape: &[usize]) {
        (self.need)(Need { name: name.to_owned(), shape: shape.to_vec(), kind: NeedKind::Matrix });
    }

    fn vector(&mut self, name: String, shape: &[usize]) {
        (self.need)(Need { name, shape: shape.to_vec(), kind: NeedKind::Vector });
    }

    fn linear(&mut self, linear: &Linear) {
        // Which way round it lies is told by its name on the disk, which is not known here.
        if !linear.transposed {
            self.matrix(&linear.name, &[linear.output, linear.input]);
        }
        if linear.bias {
            self.vector(format!("{}.bias", linear.name), &[linear.output]);
        }
    }

    fn norm(&mut self, norm: &Norm) {
        let Some(name) = &norm.name else { return };
        self.vector(format!("{name}.weight"), &[norm.size]);
        if matches!(norm.kind, NormKind::Layer { bias: true } | NormKind::LayerPlusOne) {
            self.vector(format!("{name}.bias"), &[norm.size]);
        }
    }

    fn decoder(&mut self, decoder: &Decoder) {
        self.matrix(&decoder.embedding.name, &[decoder.vocab, decoder.hidden]);
        if let Some((name, rows)) = &decoder.embedding.positions {
            self.matrix(name, &[*rows, decoder.hidden]);
        }
        decoder.embedding.norm.iter().for_each(|norm| self.norm(norm));
        self.norm(&decoder.norm);
        if let Some(name) = &decoder.head.name
            && (!decoder.head.may_be_tied || (self.has)(&format!("{name}.weight")))
        {
            self.linear(&Linear::new(name, decoder.hidden, decoder.vocab).biased(decoder.head.bias));
        }
        decoder.layers.iter().for_each(|layer| self.layer(layer));
    }

    fn layer(&mut self, layer: &Layer) {
        match &layer.residual {
            Residual::Sequential { before_attention, after_attention, before_mlp, after_mlp, .. } => {
                let norms = [before_attention, after_attention, before_mlp, after_mlp];
                norms.into_iter().flatten().for_each(|norm| self.norm(norm));
            }
            Residual::Parallel { before, before_mlp } => {
                self.norm(before);
                before_mlp.iter().for_each(|norm| self.norm(norm));
            }
        }
        match &layer.attention {
            Attention::Heads(heads) => {
                match &heads.input {
                    Qkv::Separate { q, k, v } => [q, k, v].into_iter().for_each(|one| self.linear(one)),
                    Qkv::Stacked(one) | Qkv::Grouped(one) => self.linear(one),
                }
                self.linear(&heads.output);
                heads.gate.iter().for_each(|gate| self.linear(gate));
                if let Some(sinks) = &heads.sinks {
                    self.vector(sinks.clone(), &[heads.heads]);
                }
                match &heads.qk_norm {
                    QkNorm::None => {}
                    QkNorm::EachHead(q, k) | QkNorm::EachHeadRotated(q, k) | QkNorm::AllHeads(q, k) => {
                        self.norm(q);
                        self.norm(k);
                    }
                    QkNorm::EachHeadOwnWeight { q, k, .. } => {
                        for (name, count) in [(q, heads.heads), (k, heads.kv_heads)] {
                            if name.contains("{}") {
                                for head in 0..count {
                                    let name = name.replace("{}", &head.to_string());
                                    self.vector(format!("{name}.weight"), &[heads.head_dim]);
                                }
                            } else {
                                self.vector(format!("{name}.weight"), &[count, heads.head_dim]);
                            }
                        }
                    }
                }
            }
            Attention::Latent(latent) => self.latent(latent),
        }
        match &layer.mlp {
            Mlp::Gated(gated) => self.gated(gated),
            Mlp::Plain { up, down, .. } => {
                self.linear(up);
                self.linear(down);
            }
            Mlp::Experts(experts) => self.experts(experts),
        }
    }

    fn gated(&mut self, gated: &Gated) {
        match &gated.input {
            GateUp::Separate { gate, up } => {
                self.linear(gate);
                self.linear(up);
            }
            GateUp::Stacked(both) => self.linear(both),
        }
        self.linear(&gated.down);
    }

    fn latent(&mut self, latent: &Latent) {
        match &latent.query {
            LatentQuery::Straight(one) => self.linear(one),
            LatentQuery::LowRank(down, norm, up) => {
                self.linear(down);
                self.norm(norm);
                self.linear(up);
            }
        }
        self.linear(&latent.down);
        self.norm(&latent.norm);
        self.linear(&latent.output);
        match &latent.up {
            LatentUp::Together(one) => self.linear(one),
            LatentUp::Absorbed { keys, values, together } => {
                if (self.has)(&format!("{}.weight", together.name)) {
                    self.linear(together);
                } else {
                    self.matrix(keys, &[latent.heads, latent.rank, latent.nope_dim]);
                    self.matrix(values, &[latent.heads, latent.value_dim, latent.rank]);
                }
            }
        }
    }

    fn experts(&mut self, experts: &Experts) {
        self.linear(&experts.router);
        if let Some(name) = &experts.choice.correction {
            self.vector(name.clone(), &[experts.count]);
        }
        if let Some(shared) = &experts.shared {
            self.gated(&shared.mlp);
            match &shared.mix {
                Mix::Sum => {}
                Mix::Gate(one) | Mix::Weights(one) => self.linear(one),
            }
        }
        let (hidden, inner) = (experts.hidden, experts.inner);
        let is_stacked = (self.has)(&format!("{}.weight", experts.names.stacked[0]));
        if experts.names.fused.is_some() && !is_stacked {
            // Before conversion: told when the model is loaded.
            return;
        }
        let shapes = [[inner, hidden], [inner, hidden], [hidden, inner]];
        let singles = experts.names.single.as_ref();
        for (at, (stacked, [output, input])) in experts.names.stacked.iter().zip(shapes).enumerate() {
            if (self.has)(&format!("{stacked}.weight")) {
                self.matrix(stacked, &[experts.count, output, input]);
                if experts.bias {
                    self.vector(format!("{stacked}.bias"), &[experts.count, output]);
                }
            } else if let Some(single) = singles
                && (self.has)(&format!("{}.weight", single[at].replace("{}", "0")))
            {
                for expert in 0..experts.count {
                    self.matrix(&single[at].replace("{}", &expert.to_string()), &[output, input]);
                }
            } else {
                self.matrix(stacked, &[experts.count, output, input]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;
    use crate::families::describe;

    fn llama() -> (Decoder, HashMap<String, Vec<usize>>) {
        let config = json!({"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1,
            "intermediate_size": 128, "num_attention_heads": 4, "rms_norm_eps": 1e-5, "vocab_size": 32});
        let decoder = describe(&config).expect("a llama");
        let mut shapes = HashMap::new();
        let wrong = compare(&decoder, usize::MAX, |_| None);
        let mut note = |need: Need| {
            let name = if need.kind == NeedKind::Matrix {
                format!("{}.weight", need.name)
            } else {
                need.name.clone()
            };
            shapes.insert(name, need.shape);
        };
        Look { need: &mut note, has: &|_| false }.decoder(&decoder);
        assert_eq!(wrong.len(), shapes.len());
        (decoder, shapes)
    }

    #[test]
    fn a_whole_checkpoint_lacks_nothing() {
        let (decoder, shapes) = llama();
        assert_eq!(shapes.len(), 11);
        assert_eq!(compare(&decoder, 9, |name| shapes.get(name).cloned()), []);
    }

    #[test]
    fn packed_matrices_have_the_shape_that_they_stand_for() {
        let (decoder, mut shapes) = llama();
        let name = "model.layers.0.mlp.down_proj";
        shapes.insert(format!("{name}.weight"), vec![64, 16]);
        shapes.insert(format!("{name}.scales"), vec![64, 2]);
        assert_eq!(compare(&decoder, 9, |name| shapes.get(name).cloned()), []);
        shapes.insert(format!("{name}.scales"), vec![63, 2]);
        let wrong = compare(&decoder, 9, |name| shapes.get(name).cloned());
        assert!(matches!(&wrong[..], [Mismatch::Shape { name, .. }] if name.ends_with("down_proj.scales")));
    }

    #[test]
    fn what_is_missing_or_of_another_shape_is_named() {
        let (decoder, mut shapes) = llama();
        shapes.remove("model.norm.weight");
        shapes.insert("model.embed_tokens.weight".to_owned(), vec![31, 64]);
        let wrong = compare(&decoder, 9, |name| shapes.get(name).cloned());
        assert_eq!(wrong.len(), 2);
        assert!(wrong.contains(&Mismatch::Missing("model.norm.weight".to_owned())));
        assert_eq!(compare(&decoder, 1, |name| shapes.get(name).cloned()).len(), 1);
    }
}
