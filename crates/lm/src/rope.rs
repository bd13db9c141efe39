//! Rotary positions from `rope_theta` and `rope_scaling`, as mlx_lm reads them.

use crate::config::{Config, ConfigError};
use crate::decoder::{Growth, Rope, RopeSpeed};

/// What a family says of its rotation beside the config's scaling.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) dims: usize,
    pub(crate) base: f64,
    pub(crate) traditional: bool,
}

impl Plan {
    /// `dims` rotated elements with `rope_theta`, or else `base`.
    pub(crate) fn read(config: Config<'_>, dims: usize, base: f64) -> Result<Self, ConfigError> {
        let traditional = config.flag("rope_traditional", false);
        Ok(Plan { dims, base: theta(config, base)?, traditional })
    }

    /// With neighbours paired.
    pub(crate) fn traditional(self) -> Self {
        Plan { traditional: true, ..self }
    }

    /// The rotation without any scaling.
    pub(crate) fn plain(self) -> Rope {
        let Plan { dims, base, traditional } = self;
        Rope { dims, traditional, speed: RopeSpeed::Base { base: base as f32, scale: 1.0 } }
    }
}

impl Growth {
    /// What `rope_parameters` say of it.
    pub(crate) fn read(parameters: Config<'_>) -> Result<Self, ConfigError> {
        Ok(Growth {
            beta: parameters.needs_number("llama_4_scaling_beta")? as f32,
            length: parameters.size("original_max_position_embeddings")?,
        })
    }
}

/// `rope_theta`, which newer configs have in `rope_parameters`.
pub(crate) fn theta(config: Config<'_>, base: f64) -> Result<f64, ConfigError> {
    match (config.get("rope_theta"), config.section("rope_parameters")) {
        (None, Some(parameters)) => parameters.number("rope_theta", base),
        _ => config.number("rope_theta", base),
    }
}

/// The rotation that `rope_scaling` asks for, or `rope_parameters`.
pub(crate) fn rope(config: Config<'_>, plan: Plan) -> Result<Rope, ConfigError> {
    let scaling = config.section("rope_scaling").or_else(|| config.section("rope_parameters"));
    scaled(config, scaling, plan)
}

/// The rotation that one section of a config asks for.
pub(crate) fn scaled(
    config: Config<'_>,
    scaling: Option<Config<'_>>,
    plan: Plan,
) -> Result<Rope, ConfigError> {
    let Plan { dims, base, traditional } = plan;
    let plain = |scale: f64| RopeSpeed::Base { base: base as f32, scale: scale as f32 };
    let Some(scaling) = scaling else { return Ok(Rope { dims, traditional, speed: plain(1.0) }) };
    let kind = kind_of(scaling);
    let speed = match kind {
        "default" | "mrope" => plain(1.0),
        "linear" => plain(1.0 / scaling.needs_number("factor")?),
        "dynamic" => RopeSpeed::Dynamic {
            base: base as f32,
            length: config.size("max_position_embeddings")?,
            factor: scaling.needs_number("factor")? as f32,
        },
        "llama3" => llama3(scaling, plan)?,
        "yarn" | "deepseek_yarn" | "telechat3-yarn" => yarn(scaling, plan)?,
        // Neighbours are never paired here.
        "longrope" | "su" => {
            let key = "original_max_position_embeddings";
            let original = match scaling.size_if(key)? {
                Some(length) => length,
                None => config.size(key)?,
            };
            let speed = longrope(config, scaling, plan, original)?;
            return Ok(Rope { dims, traditional: false, speed });
        }
        _ => {
            return Err(ConfigError::Value {
                key: "rope_scaling.type".to_owned(),
                value: format!("`{kind}`"),
                wanted: "linear, dynamic, llama3, yarn, longrope or su",
            });
        }
    };
    Ok(Rope { dims, traditional, speed })
}

/// `base ^ (2i / dims)` for each pair.
fn wavelengths(plan: Plan) -> impl Iterator<Item = f64> {
    let Plan { dims, base, .. } = plan;
    (0..dims / 2).map(move |pair| base.powf(2.0 * pair as f64 / dims as f64))
}

fn llama3(scaling: Config<'_>, plan: Plan) -> Result<RopeSpeed, ConfigError> {
    let factor = scaling.needs_number("factor")?;
    let low = scaling.number("low_freq_factor", 1.0)?;
    let high = scaling.number("high_freq_factor", 4.0)?;
    let length = scaling.number("original_max_position_embeddings", 8192.0)?;
    let (longest, shortest) = (length / low, length / high);
    let scaled = wavelengths(plan).map(|wavelength| {
        let turns = std::f64::consts::TAU * wavelength;
        let wavelength = if turns > longest { wavelength * factor } else { wavelength };
        if turns > shortest && turns < longest {
            let smooth = (length / turns - low) / (high - low);
            wavelength / ((1.0 - smooth) / factor + smooth)
        } else {
            wavelength
        }
    });
    Ok(RopeSpeed::Wavelengths { wavelengths: scaled.map(|one| one as f32).collect(), input_scale: 1.0 })
}

/// `0.1 * mscale * ln(factor) + 1`, for a factor above one.
pub(crate) fn yarn_scale(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

fn yarn(scaling: Config<'_>, plan: Plan) -> Result<RopeSpeed, ConfigError> {
    let factor = scaling.needs_number("factor")?;
    let length = scaling.number("original_max_position_embeddings", 4096.0)?;
    let fast = scaling.number("beta_fast", 32.0)?;
    let slow = scaling.number("beta_slow", 1.0)?;
    let input_scale = yarn_scale(factor, scaling.number("mscale", 1.0)?)
        / yarn_scale(factor, scaling.number("mscale_all_dim", 0.0)?);
    let dims = plan.dims as f64;
    let dim_of = |turns: f64| dims * (length / (turns * std::f64::consts::TAU)).ln() / (2.0 * plan.base.ln());
    let low = dim_of(fast).floor().max(0.0);
    let mut high = dim_of(slow).ceil().min(dims - 1.0);
    if low == high {
        high += 0.001;
    }
    let mixed = wavelengths(plan).enumerate().map(|(pair, short)| {
        let long = factor * short;
        let kept = 1.0 - ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
        (long * short / (long * kept + short * (1.0 - kept))) as f32
    });
    Ok(RopeSpeed::Wavelengths { wavelengths: mixed.collect(), input_scale: input_scale as f32 })
}

/// The rotation of the phi families, whose lengths before scaling stand beside `rope_scaling` and not in it.
pub(crate) fn rope_of_phi(config: Config<'_>, plan: Plan) -> Result<Rope, ConfigError> {
    let scaling = config.section("rope_scaling").or_else(|| config.section("rope_parameters"));
    match scaling {
        Some(scaling) if ["longrope", "su"].contains(&kind_of(scaling)) => {
            let original = config.size_or("original_max_position_embeddings", 4096)?;
            let speed = longrope(config, scaling, plan, original)?;
            Ok(Rope { dims: plan.dims, traditional: false, speed })
        }
        scaling => scaled(config, scaling, plan),
    }
}

/// How a section scales.
pub(crate) fn kind_of<'a>(scaling: Config<'a>) -> &'a str {
    scaling.text("type").or_else(|| scaling.text("rope_type")).unwrap_or("default")
}

fn longrope(
    config: Config<'_>,
    scaling: Config<'_>,
    plan: Plan,
    original: usize,
) -> Result<RopeSpeed, ConfigError> {
    let longest = config.size_or("max_position_embeddings", 131_072)?;
    let ratio = longest as f64 / original as f64;
    let input_scale = if ratio <= 1.0 { 1.0 } else { (1.0 + ratio.ln() / (original as f64).ln()).sqrt() };
    let factors = scaling
        .list("long_factor", "a list of numbers", serde_json::Value::as_f64)?
        .ok_or_else(|| ConfigError::Missing("rope_scaling.long_factor".to_owned()))?;
    if factors.len() != plan.dims / 2 {
        return Err(ConfigError::Value {
            key: "rope_scaling.long_factor".to_owned(),
            value: format!("{} numbers", factors.len()),
            wanted: "one for each rotated pair",
        });
    }
    let scaled = wavelengths(plan).zip(factors).map(|(wavelength, factor)| (wavelength * factor) as f32);
    Ok(RopeSpeed::Wavelengths { wavelengths: scaled.collect(), input_scale: input_scale as f32 })
}
