//! One model: loading it, asking it, measuring it.

use std::time::Instant;

use mlxman_engine::{
    Checkpoint, Device, Dtype, EngineError, Kind, Model, Parts, Speed, answers, generate, measure,
    peak_bytes, random_prompt, read_parts, reset_peak,
};
use mlxman_verify::protocol::{
    Answers, DtypeChoice, EngineInfo, Event, Failure, FailureKind, Level, Measure, Question, Rate, Report,
    Request,
};

use crate::Out;
use crate::measure::{blas, memory_of_machine, peak_of_process, rate};
use crate::words::{ANSWER_TOKENS, Words};

/// MLX, started.
pub(crate) struct Engine {
    device: Result<Device, EngineError>,
}

impl Engine {
    pub(crate) fn start() -> Self {
        Engine { device: mlxman_engine::start() }
    }

    pub(crate) fn info(&self) -> Option<EngineInfo> {
        let device = self.device.as_ref().ok()?;
        Some(EngineInfo {
            mlx_version: device.mlx_version.clone(),
            device: device.name.clone(),
            blas: blas(),
            memory_bytes: device.memory_bytes.or_else(memory_of_machine),
        })
    }

    pub(crate) fn answer(&mut self, request: &Request, out: &mut Out) -> Report {
        let mut report = Report::default();
        let done = match &self.device {
            Ok(device) => run(device, request, out, &mut report),
            Err(error) => Err(error.clone()),
        };
        if let Err(error) = done {
            report.failure = Some(Failure { kind: kind_of(error.kind), message: error.message });
        }
        report.peak_memory_bytes = Some(peak_bytes());
        report.process_peak_bytes = peak_of_process();
        reset_peak();
        report
    }
}

fn kind_of(kind: Kind) -> FailureKind {
    match kind {
        Kind::BadFile => FailureKind::BadFile,
        Kind::BadConfig => FailureKind::BadConfig,
        Kind::MissingTensor => FailureKind::MissingTensor,
        Kind::WrongShape => FailureKind::WrongShape,
        Kind::NotFiniteWeights => FailureKind::NotFiniteWeights,
        Kind::NotFiniteLogits => FailureKind::NotFiniteLogits,
        Kind::Degenerate => FailureKind::Degenerate,
        Kind::Vocabulary => FailureKind::Vocabulary,
        _ => FailureKind::Engine,
    }
}

fn run(device: &Device, request: &Request, out: &mut Out, report: &mut Report) -> Result<(), EngineError> {
    reset_peak();
    let start = Instant::now();
    let id = request.id;
    let mut say = |phase: &str, done: u64, total: u64| {
        // Whoever does not listen any more has ended this process's reason to be.
        let _ = out.say(&Event::Phase { id, phase: phase.to_owned(), done, total });
    };
    say("load", 0, 0);
    let Some(checkpoint) = language_model(request, device, report)? else {
        let parts = read_parts(&request.model, &mut |done, total| say("load", done, total))?;
        report.tensors = parts.tensors;
        report.tensor_bytes = parts.bytes;
        report.level = Some(Level::Load);
        report.load_seconds = Some(start.elapsed().as_secs_f64());
        report.instead = Some(instead(&parts, report.unknown_architecture.as_deref()));
        return Ok(());
    };
    let model = Model::load(checkpoint, &mut |done, total| say("load", done, total))?;
    report.level = Some(Level::Load);
    report.family = Some(model.family.to_owned());
    report.tensors = model.tensors;
    report.tensor_bytes = model.bytes;
    report.dtype = Some(model.dtype.clone());
    report.load_seconds = Some(start.elapsed().as_secs_f64());
    if request.level < Level::Generate {
        return Ok(());
    }
    say("prompt", 0, 1);
    let words = Words::of(&request.model, model.vocab, &mut report.notes)?;
    let _on_one_core = model.run(device);
    let said = match &words {
        Some(words) => generate(&model, &words.prompt, ANSWER_TOKENS, words.eos())?,
        None => generate(&model, &random_prompt(model.vocab, 8), 1, &[])?,
    };
    report.first_token_seconds = Some(said.first_token_seconds);
    listens(&model, &said.logits)?;
    if let Some(words) = &words {
        report.text = Some(words.text(&said.tokens)?);
    }
    if let Some(question) = &request.answers {
        say("answers", 0, 1);
        report.answers = Some(answer(device, &model, question)?);
    }
    speeds(&model, request.measure, &mut say, report)?;
    report.level = Some(Level::Generate);
    Ok(())
}

/// The files of a model that a decoder is known for; else `None`, and the report says which architecture it is.
fn language_model(
    request: &Request,
    device: &Device,
    report: &mut Report,
) -> Result<Option<Checkpoint>, EngineError> {
    if !request.model.join("config.json").exists() {
        return Ok(None);
    }
    let mut checkpoint = Checkpoint::open(&request.model, dtype_of(request.dtype, device))?;
    if let Err(error) = checkpoint.describe() {
        if error.kind != Kind::UnknownFamily {
            return Err(error);
        }
        let named = checkpoint.config.get("model_type").and_then(serde_json::Value::as_str);
        report.unknown_architecture = Some(named.unwrap_or("without a name").to_owned());
        return Ok(None);
    }
    if let Some(adapter) = &request.adapter {
        checkpoint.put_over(adapter)?;
    }
    Ok(Some(checkpoint))
}

/// What was done with a model that no decoder is known for.
fn instead(parts: &Parts, architecture: Option<&str>) -> String {
    let of = match parts.components.as_slice() {
        [] => String::new(),
        components => format!(" of {}", components.join(", ")),
    };
    let why = match architecture {
        Some(name) => format!("there is no decoder for `{name}`"),
        None => "it is no language model".to_owned(),
    };
    format!("{why}: its {} tensors{of} were read, and are finite", parts.tensors)
}

/// A model whose logits are the same whatever it is told has a broken part. `logits` are those after another prompt.
fn listens(model: &Model, logits: &[f32]) -> Result<(), EngineError> {
    let is_flat = logits.iter().all(|logit| Some(logit) == logits.first());
    if model.vocab < 2 {
        return Ok(());
    }
    // Two prompts that differ from each other: one of them differs from the one that was asked, too.
    let same =
        |token: u32| Ok::<_, EngineError>(answers(model, &[token], usize::MAX, 0)?.logits_head == logits);
    if is_flat || (same(0)? && same(1)?) {
        return Err(EngineError {
            kind: Kind::Degenerate,
            message:
                "it says the same whatever it is told: different prompts give the same logits, or all tokens \
                      are equally likely; a matrix of it may be zero"
                    .to_owned(),
        });
    }
    Ok(())
}

fn answer(device: &Device, model: &Model, question: &Question) -> Result<Answers, EngineError> {
    let said = answers(model, &question.prompt_ids, question.logits_head, question.greedy)?;
    Ok(Answers {
        prompt_ids: question.prompt_ids.clone(),
        logits_head: said.logits_head,
        top10: said.top10,
        greedy: said.greedy,
        computed_by: format!(
            "mlxman {} on mlx {} ({}, {})",
            env!("CARGO_PKG_VERSION"),
            device.mlx_version,
            device.name,
            model.dtype
        ),
    })
}

fn speeds(
    model: &Model,
    wanted: Measure,
    say: &mut dyn FnMut(&str, u64, u64),
    report: &mut Report,
) -> Result<(), EngineError> {
    if wanted.trials == 0 {
        return Ok(());
    }
    let prompt = random_prompt(model.vocab, wanted.prompt_tokens.max(1) as usize);
    let count = wanted.generated_tokens.max(2) as usize;
    let trials = u64::from(wanted.trials);
    say("warm_up", 0, trials);
    // The prompt's whole way, and one token's: all kernels have run then.
    measure(model, &prompt, count.min(2))?;
    let start = Instant::now();
    let mut speeds: Vec<Speed> = Vec::new();
    while speeds.is_empty()
        || (speeds.len() < wanted.trials as usize && start.elapsed().as_secs_f64() < wanted.seconds)
    {
        say("generate", speeds.len() as u64, trials);
        speeds.push(measure(model, &prompt, count)?);
    }
    let all =
        |of: fn(&Speed) -> f64, tokens: usize| -> Rate { rate(speeds.iter().map(of).collect(), tokens) };
    report.prompt_tps = Some(all(|speed| speed.prompt_tps, prompt.len()));
    report.generation_tps = Some(all(|speed| speed.generation_tps, count));
    Ok(())
}

fn dtype_of(choice: DtypeChoice, device: &Device) -> Dtype {
    match choice {
        DtypeChoice::Auto if device.prefers_float32() => Dtype::Float32,
        DtypeChoice::Auto | DtypeChoice::Checkpoint => Dtype::Checkpoint,
        DtypeChoice::Float32 => Dtype::Float32,
        DtypeChoice::Bfloat16 => Dtype::Bfloat16,
        DtypeChoice::Float16 => Dtype::Float16,
    }
}
