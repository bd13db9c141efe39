//! One model: loading it, asking it, measuring it.

use std::time::Instant;

use mlxman_engine::{
    Checkpoint, Device, Dtype, EngineError, Kind, Model, Parts, Speed, answers, describe, generate, measure,
    peak_bytes, random_prompt, read_config, read_parts, reset_peak,
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
    let loaded = match language_model(request, device, report) {
        Ok(Some(checkpoint)) => {
            Model::load(checkpoint, &mut |done, total| say("load", done, total)).map(Some)
        }
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    };
    let (model, why) = match loaded {
        Ok(Some(model)) => (Some(model), None),
        Ok(None) => (None, None),
        // Nothing is wrong with it, as far as its tensors go.
        Err(error) if error.kind == Kind::UnknownAdapter => (None, Some(error.message)),
        Err(error) => return Err(error),
    };
    let Some(model) = model else {
        let dir = request.adapter.as_ref().unwrap_or(&request.model);
        let parts = read_parts(dir, &mut |done, total| say("load", done, total))?;
        report.tensors = parts.tensors;
        report.tensor_bytes = parts.bytes;
        if parts.unread > 0 {
            let note = format!("{} tensors of npz files are compressed, and were not read", parts.unread);
            report.notes.push(note);
        }
        report.level = Some(Level::Load);
        report.load_seconds = Some(start.elapsed().as_secs_f64());
        report.instead = Some(instead(&parts, why, report.unknown_architecture.as_deref()));
        return Ok(());
    };
    report.level = Some(Level::Load);
    report.family = Some(model.family.to_owned());
    report.tensors = model.tensors;
    report.tensor_bytes = model.bytes;
    report.dtype = Some(model.dtype.clone());
    report.notes.extend(model.notes.iter().cloned());
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

/// An architecture that `config.json` does not name.
const NAMELESS: &str = "without a name";

/// The files of a model that a decoder is known for; else `None`, and the report says which architecture it is.
fn language_model(
    request: &Request,
    device: &Device,
    report: &mut Report,
) -> Result<Option<Checkpoint>, EngineError> {
    if !request.model.join("config.json").exists() {
        return Ok(None);
    }
    // The description first: what no decoder is known for may have its weights in any file.
    let config = read_config(&request.model)?;
    if let Err(error) = describe(&config) {
        if error.kind != Kind::UnknownFamily {
            return Err(error);
        }
        let named = config.get("model_type").and_then(serde_json::Value::as_str);
        report.unknown_architecture = Some(named.unwrap_or(NAMELESS).to_owned());
        return Ok(None);
    }
    let mut checkpoint = Checkpoint::open(&request.model, config, dtype_of(request.dtype, device))?;
    if let Some(adapter) = &request.adapter {
        checkpoint.put_over(adapter)?;
    }
    Ok(Some(checkpoint))
}

/// What was done with a model that no decoder is known for, or with an adapter that cannot be laid over one.
fn instead(parts: &Parts, why: Option<String>, architecture: Option<&str>) -> String {
    let of = match parts.components.as_slice() {
        [] => String::new(),
        components => format!(" of {}", components.join(", ")),
    };
    let why = match (why, architecture) {
        (Some(why), _) => why,
        (None, Some(NAMELESS)) => "its config.json names no architecture".to_owned(),
        (None, Some(name)) => format!("there is no decoder for `{name}`"),
        (None, None) => "it is no language model".to_owned(),
    };
    format!("{why}: its {} tensors{of} were read, and are finite", parts.tensors)
}

/// A model that says the same whatever it is told has a broken part. `logits` are those after another prompt.
fn listens(model: &Model, logits: &[f32]) -> Result<(), EngineError> {
    let degenerate = |how: String| {
        let message = format!("it says the same whatever it is told: {how}");
        Err(EngineError { kind: Kind::Degenerate, message })
    };
    if model.vocab < 2 {
        return Ok(());
    }
    let after = |token: u32| Ok::<_, EngineError>(answers(model, &[token], usize::MAX, 0)?.logits_head);
    if is_flat(logits) {
        return degenerate(
            "all tokens are equally likely, or all but one; a matrix of it may be zero".to_owned(),
        );
    }
    // Two prompts that differ from each other: one of them differs from the one that was asked, too.
    let first = after(0)?;
    if first == logits && after(1)? == logits {
        return degenerate("different prompts give the same logits; a matrix of it may be zero".to_owned());
    }
    match always(model, logits, first)? {
        Some(token) => degenerate(format!("after every prompt, its head gives the token {token}")),
        None => Ok(()),
    }
}

/// Whether there is no more than one logit that differs from the others.
fn is_flat(logits: &[f32]) -> bool {
    let differs = |from: f32| logits.iter().filter(|logit| **logit != from).count();
    match logits {
        [] => true,
        // The one that differs may be the first.
        [one, other, _, _, ..] => differs(*one).min(differs(*other)) <= 1,
        [one, ..] => differs(*one) == 0,
    }
}

/// The one token that a head gives, whatever it is told. Small models that are well have favourites too: it has to be the
/// most likely one after every prompt, by far more than any logit changes from one prompt to the other, and nothing else
/// may come when the model goes on.
fn always(model: &Model, logits: &[f32], first: Vec<f32>) -> Result<Option<u32>, EngineError> {
    /// How much farther the second has to be behind than any logit moves.
    const FAR: f32 = 2.0;
    let Some((token, _)) = winner(logits) else { return Ok(None) };
    let mut all = vec![logits.to_vec(), first];
    let others = [1, model.vocab as u32 / 3, model.vocab as u32 / 3 * 2, model.vocab as u32 - 1];
    for prompt in others {
        if all.last().and_then(|last| winner(last)).is_none_or(|(other, _)| other != token) {
            return Ok(None);
        }
        // A row of the embedding that no text ever uses may give no numbers: that says nothing of the head.
        let Ok(said) = answers(model, &[prompt], usize::MAX, 0) else { return Ok(None) };
        all.push(said.logits_head);
    }
    let winners: Vec<(u32, f32)> = all.iter().filter_map(|said| winner(said)).collect();
    if winners.iter().any(|(other, _)| *other != token) {
        return Ok(None);
    }
    let margin = winners.iter().fold(f32::INFINITY, |least, (_, margin)| least.min(*margin));
    let moved = (0..logits.len()).fold(0.0_f32, |most, at| {
        let of = || all.iter().filter_map(|said| said.get(at).copied());
        most.max(of().fold(f32::MIN, f32::max) - of().fold(f32::MAX, f32::min))
    });
    if margin <= FAR * moved {
        return Ok(None);
    }
    let said = generate(model, &random_prompt(model.vocab, 8), ANSWER_TOKENS, &[])?;
    Ok(said.tokens.iter().all(|said| *said == token).then_some(token))
}

/// The most likely token, and how far the next one is behind.
fn winner(logits: &[f32]) -> Option<(u32, f32)> {
    let (at, most) = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
    let rest = logits.iter().enumerate().filter(|(other, _)| *other != at);
    let second = rest.map(|(_, logit)| *logit).fold(f32::MIN, f32::max);
    Some((u32::try_from(at).ok()?, most - second))
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
