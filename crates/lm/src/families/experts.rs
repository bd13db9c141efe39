//! What most families with experts share.

use super::parts::{Sizes, gated};
use crate::config::{Config, ConfigError};
use crate::decoder::{
    Activation, Choice, ExpertNames, Experts, Groups, Linear, Mix, Precision, Scores, Shared,
};

const NAMES: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

/// Experts below `prefix`: stacked in `switch_mlp`, or one by one in `experts`.
pub(super) fn expert_names(prefix: &str) -> ExpertNames {
    ExpertNames {
        stacked: NAMES.map(|name| format!("{prefix}.switch_mlp.{name}")),
        single: Some(NAMES.map(|name| format!("{prefix}.experts.{{}}.{name}"))),
        fused: None,
    }
}

/// Experts below `prefix` that are stacked in `experts` too.
pub(super) fn names_in_experts(prefix: &str) -> ExpertNames {
    ExpertNames { stacked: NAMES.map(|name| format!("{prefix}.experts.{name}")), ..expert_names(prefix) }
}

/// Experts below `prefix` that are called as mixtral's are.
pub(super) fn names_of_mixtral(prefix: &str) -> ExpertNames {
    let single = ["w1", "w3", "w2"].map(|name| format!("{prefix}.experts.{{}}.{name}"));
    ExpertNames { single: Some(single), ..expert_names(prefix) }
}

/// How many experts there are, how many see a token, and how large each is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crowd {
    pub(super) count: usize,
    pub(super) chosen: usize,
    pub(super) inner: usize,
}

impl Crowd {
    /// By the key of their number; `inner` elements each.
    pub(super) fn read(config: Config<'_>, count_key: &str, inner: usize) -> Result<Self, ConfigError> {
        let count = config.count(count_key)?;
        Ok(Crowd { count, chosen: config.count("num_experts_per_tok")?.min(count), inner })
    }

    /// Experts below `prefix`, with the usual names.
    pub(super) fn experts(self, sizes: Sizes, prefix: &str, choice: Choice) -> Experts {
        Experts {
            count: self.count,
            chosen: self.chosen,
            hidden: sizes.hidden,
            inner: self.inner,
            router: Linear::new(format!("{prefix}.gate"), sizes.hidden, self.count),
            choice,
            names: expert_names(prefix),
            bias: false,
            activation: Activation::Silu,
            shared: None,
        }
    }
}

/// One that sees every token.
pub(super) fn shared(sizes: Sizes, name: &str, inner: usize) -> Shared {
    Shared { mlp: gated(name, sizes.hidden, inner, Activation::Silu, false), mix: Mix::Sum }
}

/// As many of them as the config says, in one matrix.
pub(super) fn shared_experts(
    config: Config<'_>,
    sizes: Sizes,
    count_key: &str,
    prefix: &str,
    inner: usize,
) -> Result<Option<Shared>, ConfigError> {
    let count = config.count_if(count_key)?;
    Ok(count.map(|count| shared(sizes, &format!("{prefix}.shared_experts"), inner * count)))
}

/// Sigmoids with a correction, and groups. `eps` is added to the sum of the chosen ones' weights.
pub(super) fn corrected(config: Config<'_>, correction: String, eps: f32) -> Result<Choice, ConfigError> {
    let chosen = config.count_if("num_experts_per_tok")?.unwrap_or(1);
    let normalised = config.flag("norm_topk_prob", true) && chosen > 1;
    Ok(Choice {
        correction: Some(correction),
        groups: groups(config, 2)?,
        normalised: normalised.then_some(eps),
        scale: config.number("routed_scaling_factor", 1.0)? as f32,
        ..Choice::plain(Scores::Sigmoid, Precision::Single)
    })
}

/// `topk_group` of `n_group`, each as good as its `best` experts.
pub(super) fn groups(config: Config<'_>, best: usize) -> Result<Option<Groups>, ConfigError> {
    let count = config.count_if("n_group")?.unwrap_or(1);
    let kept = config.count_if("topk_group")?.unwrap_or(1);
    Ok((count > 1).then_some(Groups { count, kept, best }))
}

/// How many layers from the first on have no experts.
pub(super) fn dense_layers(config: Config<'_>, key: &str) -> usize {
    config.get(key).and_then(serde_json::Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
}
