//! Running a model: known answers, a first token, speed.

use std::time::Instant;

use mlx_rs::{Array, Dtype, ops, transforms};

use crate::error::{EngineError, Kind, Result, said};
use crate::model::{Model, State};

/// A prompt is read so many tokens at once.
const AT_ONCE: usize = 2048;

/// What a model says to a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// The first logits of the prompt's last position.
    pub logits_head: Vec<f32>,
    /// The ten greatest there, with their tokens.
    pub top10: Vec<(u32, f32)>,
    /// The most likely tokens that follow, one after the other.
    pub greedy: Vec<u32>,
}

/// What a model goes on with after a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// The most likely tokens, one after the other.
    pub tokens: Vec<u32>,
    /// The logits of the prompt's last position.
    pub logits: Vec<f32>,
    /// Seconds from the prompt to the first token.
    pub first_token_seconds: f64,
}

/// Tokens a second of one trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Of the prompt.
    pub prompt_tps: f64,
    /// Of what was generated.
    pub generation_tps: f64,
}

/// What the model says to a prompt: the first `head` logits, the ten greatest, `count` tokens.
///
/// # Errors
/// When a logit is not finite, a token of the prompt has no embedding, or MLX says no.
pub fn answers(model: &Model, prompt: &[u32], head: usize, count: usize) -> Result<Answers> {
    check_tokens(model, prompt)?;
    let mut state = model.begin();
    let logits = prefill(model, prompt, &mut state)?;
    let numbers = numbers(&logits)?;
    let mut order: Vec<(u32, f32)> =
        numbers.iter().enumerate().map(|(at, logit)| (at as u32, *logit)).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.truncate(10);
    let mut greedy = Vec::with_capacity(count);
    let mut steps = Steps::after(model, state, &logits)?;
    while greedy.len() < count {
        // Nothing is computed after the last one.
        greedy.push(if greedy.len() + 1 < count { steps.next()? } else { steps.last()? });
    }
    Ok(Answers { logits_head: numbers[..head.min(numbers.len())].to_vec(), top10: order, greedy })
}

/// The most likely tokens after a prompt, at most `most`, and none from the first one of `eos` on.
///
/// # Errors
/// As [`answers`].
pub fn generate(model: &Model, prompt: &[u32], most: usize, eos: &[u32]) -> Result<Said> {
    check_tokens(model, prompt)?;
    let start = Instant::now();
    let mut state = model.begin();
    let logits = prefill(model, prompt, &mut state)?;
    let first = greatest(&logits)?;
    transforms::eval([&first])?;
    let first_token_seconds = start.elapsed().as_secs_f64();
    let numbers = numbers(&logits)?;
    let mut tokens = Vec::with_capacity(most);
    if most > 0 {
        let mut steps = Steps::after(model, state, &logits)?;
        while tokens.len() < most {
            // Nothing is computed after the last one.
            let token = if tokens.len() + 1 < most { steps.next()? } else { steps.last()? };
            if eos.contains(&token) {
                break;
            }
            tokens.push(token);
        }
    }
    Ok(Said { tokens, logits: numbers, first_token_seconds })
}

/// One trial: a prompt is read, and `count` tokens are generated; the prompt's time goes to the first of them.
///
/// # Errors
/// As [`answers`].
pub fn measure(model: &Model, prompt: &[u32], count: usize) -> Result<Speed> {
    check_tokens(model, prompt)?;
    let start = Instant::now();
    let mut state = model.begin();
    let logits = prefill(model, prompt, &mut state)?;
    let mut steps = Steps::after(model, state, &logits)?;
    steps.next()?;
    let prompt_seconds = start.elapsed().as_secs_f64();
    let start = Instant::now();
    for _ in 1..count.max(2) {
        steps.next()?;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Speed {
        prompt_tps: prompt.len() as f64 / prompt_seconds,
        generation_tps: (count.max(2) - 1) as f64 / seconds,
    })
}

/// A prompt of tokens that are the same every time.
pub fn random_prompt(vocab: usize, length: usize) -> Vec<u32> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % vocab.max(1) as u64) as u32
    };
    (0..length).map(|_| next()).collect()
}

fn check_tokens(model: &Model, prompt: &[u32]) -> Result<()> {
    match prompt.iter().find(|token| **token as usize >= model.vocab) {
        _ if prompt.is_empty() => Err(EngineError::new(Kind::BadConfig, "the prompt is empty")),
        Some(token) => Err(EngineError::new(
            Kind::BadConfig,
            format!("the prompt has the token {token}, and the model has {} embeddings", model.vocab),
        )),
        None => Ok(()),
    }
}

/// The logits after a prompt, `[1, 1, vocab]`.
fn prefill(model: &Model, prompt: &[u32], state: &mut State) -> Result<Array> {
    let mut rest = prompt;
    // As mlx_lm does: all but the last token first, in pieces, and what they leave is evaluated.
    while rest.len() > AT_ONCE {
        let (now, later) = rest.split_at(AT_ONCE.min(rest.len() - 1));
        model.forward(&row(now), state)?;
        transforms::eval(state.arrays())?;
        rest = later;
    }
    model.forward(&row(rest), state)
}

fn row(tokens: &[u32]) -> Array {
    Array::from_slice(tokens, &[1, tokens.len() as i32])
}

fn greatest(logits: &Array) -> Result<Array> {
    Ok(ops::indexing::argmax_axis(logits, -1, None)?)
}

fn token_of(array: &Array) -> Result<u32> {
    array
        .try_item_cast::<u32>()
        .map_err(|error| EngineError::new(Kind::Engine, format!("MLX gave no token: {}", said(error))))
}

/// Logits as numbers, which have to be finite.
fn numbers(logits: &Array) -> Result<Vec<f32>> {
    let numbers: Vec<f32> =
        logits.as_dtype(Dtype::Float32)?.flatten(None, None)?.to_vec_exact().map_err(|error| {
            EngineError::new(Kind::Engine, format!("MLX gave no logits: {}", said(error)))
        })?;
    let odd = numbers.iter().filter(|logit| !logit.is_finite()).count();
    if odd > 0 {
        let message = format!("{odd} of {} logits are NaN or Inf", numbers.len());
        return Err(EngineError::new(Kind::NotFiniteLogits, message));
    }
    Ok(numbers)
}

/// Tokens one after the other. The next one is under way before the last one is asked for.
struct Steps<'a> {
    model: &'a Model,
    state: State,
    pending: Array,
}

impl<'a> Steps<'a> {
    fn after(model: &'a Model, state: State, logits: &Array) -> Result<Self> {
        let pending = greatest(logits)?;
        transforms::async_eval([&pending])?;
        Ok(Steps { model, state, pending })
    }

    fn next(&mut self) -> Result<u32> {
        let logits = self.model.forward(&self.pending.reshape(&[1, 1])?, &mut self.state)?;
        let next = greatest(&logits)?;
        transforms::async_eval([&next])?;
        token_of(&std::mem::replace(&mut self.pending, next))
    }

    /// The last token that is wanted.
    fn last(&self) -> Result<u32> {
        token_of(&self.pending)
    }
}
