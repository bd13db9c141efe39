//! A model's tokenizer: `tokenizer.json`, and what the files beside it say of its special tokens.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use serde_json::Value;

use crate::files::{self, FileError};

/// Words to tokens, and back.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: BTreeMap<String, String>,
    eos: Vec<u32>,
    greatest: Option<u32>,
}

/// What there was to open.
#[derive(Debug, Clone)]
pub enum Opened {
    /// A tokenizer.
    Tokenizer(Box<Tokenizer>),
    /// None that can be read, and why.
    Absent(String),
}

/// Pairs of tokens that a model thinks between, as mlx_lm knows them.
const THINKING: &[[&str; 2]] = &[
    ["<think>", "</think>"],
    ["<longcat_think>", "</longcat_think>"],
    ["<|think:start|>", "<|think:end|>"],
    ["<|channel>", "<channel|>"],
];

impl Tokenizer {
    /// Opens the tokenizer of the model in a directory.
    ///
    /// # Errors
    /// When a file of it is there and is not what it should be.
    pub fn open(dir: &Path) -> Result<Opened, FileError> {
        let path = dir.join("tokenizer.json");
        let Some(bytes) = files::read(&path)? else { return Ok(Opened::Absent(why_absent(dir))) };
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| {
            FileError::new(
                &path,
                format!("is not a tokenizer that `tokenizers` can read ({error}); download it again"),
            )
        })?;
        // As transformers does: a prompt is neither cut nor filled up.
        let uncut = inner.with_padding(None).with_truncation(None).map(|_| ());
        uncut
            .map_err(|error| FileError::new(&path, format!("cannot be used ({error}); download it again")))?;
        let special = special_tokens(dir)?;
        let named = special.get("eos_token").and_then(|token| inner.token_to_id(token));
        let eos: BTreeSet<u32> = eos_of_configs(dir)?.into_iter().chain(named).collect();
        let greatest = greatest_base(&inner);
        let tokenizer = Tokenizer { inner, special, eos: eos.into_iter().collect(), greatest };
        Ok(Opened::Tokenizer(Box::new(tokenizer)))
    }

    /// The special tokens that have names: `bos_token`, `eos_token` and so on.
    pub fn special(&self) -> &BTreeMap<String, String> {
        &self.special
    }

    /// The tokens that end an answer: those of the configs, and the tokenizer's own.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// The greatest token of the vocabulary. Tokens that were added to it do not count: gemma3's image token lies
    /// beyond the embedding of its text model, and is never looked up there.
    pub fn greatest(&self) -> Option<u32> {
        self.greatest
    }

    /// Whether it has tokens to think between.
    pub fn thinks(&self) -> bool {
        let has = |token: &&str| self.inner.token_to_id(token).is_some();
        THINKING.iter().any(|pair| pair.iter().all(has))
    }

    /// The tokens of a prompt. The tokenizer puts its own special tokens around it, unless the prompt has them already,
    /// as what a chat template wrote does.
    ///
    /// # Errors
    /// When the tokenizer says no.
    pub fn encode(&self, prompt: &str, add_special_tokens: bool) -> Result<Vec<u32>, String> {
        let encoding = self.inner.encode(prompt, add_special_tokens);
        encoding.map(|encoding| encoding.get_ids().to_vec()).map_err(|error| error.to_string())
    }

    /// The text of tokens. Bytes at the end that begin a character and do not complete it are left out: the next token
    /// may complete it.
    ///
    /// # Errors
    /// When the tokenizer says no.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        let mut text = self.inner.decode(tokens, false).map_err(|error| error.to_string())?;
        text.truncate(text.trim_end_matches(char::REPLACEMENT_CHARACTER).len());
        Ok(text)
    }
}

fn why_absent(dir: &Path) -> String {
    let has = |name: &str| dir.join(name).exists();
    match ["tokenizer.model", "tiktoken.model", "vocab.json", "vocab.txt"].into_iter().find(|name| has(name))
    {
        Some(name) => {
            format!("its tokenizer is a {name} without a tokenizer.json, the one form that mlxman reads")
        }
        None => "there is no tokenizer.json".to_owned(),
    }
}

/// The greatest token that was not added to the vocabulary.
fn greatest_base(tokenizer: &tokenizers::Tokenizer) -> Option<u32> {
    let added: HashSet<u32> = tokenizer.get_added_tokens_decoder().into_keys().collect();
    tokenizer.get_vocab(false).into_values().filter(|id| !added.contains(id)).max()
}

/// The special tokens with names, as transformers puts them together.
fn special_tokens(dir: &Path) -> Result<BTreeMap<String, String>, FileError> {
    let config = files::read_json(&dir.join("tokenizer_config.json"))?;
    let mut special = BTreeMap::new();
    let mut take = |document: &Value| {
        for (name, value) in document.as_object().into_iter().flatten() {
            // A token is a string, or an object that says how it is matched as well.
            let token = value.as_str().or_else(|| value.get("content").and_then(Value::as_str));
            if let Some(token) = token.filter(|_| name.ends_with("_token")) {
                special.insert(name.clone(), token.to_owned());
            }
        }
    };
    if let Some(config) = &config {
        take(config);
    }
    // The older file counts only where the newer one does not list all tokens.
    if config.is_none_or(|config| config.get("added_tokens_decoder").is_none())
        && let Some(map) = files::read_json(&dir.join("special_tokens_map.json"))?
    {
        take(&map);
    }
    Ok(special)
}

/// `eos_token_id` as mlx_lm reads it: `generation_config.json` counts, where it has one, else `config.json`.
fn eos_of_configs(dir: &Path) -> Result<Vec<u32>, FileError> {
    // mlx_lm goes on where this one is damaged.
    let generation = files::read_json(&dir.join("generation_config.json")).unwrap_or_default();
    let of = |document: &Value| document.get("eos_token_id").map(ids).unwrap_or_default();
    // As Python sees it, 0 says nothing there.
    let says = |document: &Value| document.get("eos_token_id") != Some(&Value::from(0));
    let ids = generation.filter(says).as_ref().map(of).unwrap_or_default();
    if ids.is_empty() {
        return Ok(files::read_json(&dir.join("config.json"))?.as_ref().map(of).unwrap_or_default());
    }
    Ok(ids)
}

/// A number, or a list of them.
fn ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(list) => list.iter().filter_map(id).collect(),
        value => id(value).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests;
