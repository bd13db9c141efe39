//! Quantization labels in one spelling.

use super::pattern::Pattern;

/// One spelling for the many of a quantization label.
///
/// | written | means |
/// | --- | --- |
/// | `4bit`, `4-bit`, `4_bits`, `int4`, `q4`, `w4`, `4` | `4bit` |
/// | `f16`, `fp16`, `float16`, `half` | `f16` |
/// | `bf16`, `bfloat16` | `bf16` |
/// | `f32`, `fp32`, `float32` | `f32` |
/// | `mixed_4_8`, `mixed-4-8bit` | `mixed-4-8bit` |
///
/// Anything else is itself in lower case, with `-` for `_` and spaces: `Q4_K_M` is `q4-k-m`, which is not `4bit`.
#[must_use]
pub fn normalize_quantization(label: &str) -> String {
    let label = label.trim().to_lowercase().replace(['_', ' '], "-");
    let bare = label.replace('-', "");
    match bare.as_str() {
        "f16" | "fp16" | "float16" | "half" => return "f16".to_owned(),
        "bf16" | "bfloat16" => return "bf16".to_owned(),
        "f32" | "fp32" | "float32" => return "f32".to_owned(),
        _ => {}
    }
    if let Some(rest) = label.strip_prefix("mixed") {
        return mixed(rest).unwrap_or(label);
    }
    let digits = ["int", "q", "w"].iter().find_map(|prefix| bare.strip_prefix(prefix)).unwrap_or(&bare);
    let digits = digits.strip_suffix("bits").or_else(|| digits.strip_suffix("bit")).unwrap_or(digits);
    let is_width = matches!(digits.len(), 1 | 2) && digits.bytes().all(|digit| digit.is_ascii_digit());
    if is_width { format!("{digits}bit") } else { label }
}

/// The spelling of `mixed` followed by `rest`, where that is a list of bit widths.
fn mixed(rest: &str) -> Option<String> {
    let rest = rest.strip_suffix("bits").or_else(|| rest.strip_suffix("bit")).unwrap_or(rest);
    let widths: Vec<&str> = rest.split('-').filter(|part| !part.is_empty()).collect();
    let is_width = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    if widths.is_empty() || !widths.iter().all(is_width) {
        return None;
    }
    Some(format!("mixed-{}bit", widths.join("-")))
}

/// What `--quantization` and `quantization=` look for.
#[derive(Debug, Clone)]
pub(super) struct LabelPattern {
    normal: String,
    pattern: Pattern,
}

impl LabelPattern {
    pub(super) fn new(text: &str) -> Result<Self, globset::Error> {
        let pattern = Pattern::new(&text.trim().replace('_', "-"))?;
        Ok(Self { normal: normalize_quantization(text), pattern })
    }

    /// Whether `label` is the one meant; `mixed` means every mixed one.
    pub(super) fn matches(&self, label: &str) -> bool {
        let normal = normalize_quantization(label);
        normal == self.normal
            || self.pattern.matches(&normal)
            || self.pattern.matches(&label.trim().replace('_', "-"))
            || (self.normal == "mixed" && normal.starts_with("mixed"))
    }
}
