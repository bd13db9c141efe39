//! A model asked in words: its tokenizer, its chat template, and what it says.

use std::path::Path;

use mlxman_engine::{EngineError, Kind};
use mlxman_lm::chat::{Chat, ChatTemplate, Message};
use mlxman_lm::files::FileError;
use mlxman_lm::tokenizer::{Opened, Tokenizer};

/// What a model is asked.
const ASKED: &str = "Say hello.";

/// How many tokens it may answer with, and of how many characters they are shown.
pub(crate) const ANSWER_TOKENS: usize = 16;
const ANSWER_CHARACTERS: usize = 200;

/// A prompt that is longer says more than was asked, and would take a while.
const LONGEST: usize = 2048;

/// A prompt as a user's goes to the model.
pub(crate) struct Words {
    tokenizer: Box<Tokenizer>,
    /// Its tokens.
    pub(crate) prompt: Vec<u32>,
}

impl Words {
    /// A short prompt for the model in a directory, whose embedding has so many rows; `None` where there is no tokenizer
    /// or it makes no prompt, and `notes` says why.
    pub(crate) fn of(dir: &Path, rows: usize, notes: &mut Vec<String>) -> Result<Option<Self>, EngineError> {
        let tokenizer = match Tokenizer::open(dir).map_err(|error| bad_file(&error))? {
            Opened::Tokenizer(tokenizer) => tokenizer,
            Opened::Absent(why) => {
                notes.push(format!("{why}: it was asked in random tokens"));
                return Ok(None);
            }
        };
        if let Some(greatest) = tokenizer.greatest().filter(|greatest| *greatest as usize >= rows) {
            return Err(beyond("tokens up to", greatest, rows, dir));
        }
        let prompt = match prompt(dir, &tokenizer, notes)? {
            prompt if (1..=LONGEST).contains(&prompt.len()) => prompt,
            prompt => {
                let message = format!(
                    "`{ASKED}` becomes {} tokens with its tokenizer: it was asked in random ones",
                    prompt.len()
                );
                notes.push(message);
                return Ok(None);
            }
        };
        match prompt.iter().find(|token| **token as usize >= rows) {
            // An added token that a prompt has is looked up like any other.
            Some(token) => Err(beyond("a prompt with the added token", *token, rows, dir)),
            None => Ok(Some(Words { tokenizer, prompt })),
        }
    }

    /// What tokens end an answer.
    pub(crate) fn eos(&self) -> &[u32] {
        self.tokenizer.eos()
    }

    /// An answer as one line.
    pub(crate) fn text(&self, tokens: &[u32]) -> Result<String, EngineError> {
        let text = self.tokenizer.decode(tokens).map_err(|why| EngineError {
            kind: Kind::BadFile,
            message: format!("its tokenizer cannot decode the tokens {tokens:?}: {why}"),
        })?;
        Ok(shown(&text))
    }
}

/// The tokens of what a model is asked: through its chat template, where it has one that works.
fn prompt(dir: &Path, tokenizer: &Tokenizer, notes: &mut Vec<String>) -> Result<Vec<u32>, EngineError> {
    let rendered = ChatTemplate::find(dir).map_err(|error| bad_file(&error))?.and_then(|template| {
        let chat = Chat {
            messages: &[Message { role: "user", content: ASKED }],
            special: tokenizer.special(),
            enable_thinking: tokenizer.thinks(),
            now: chrono::Local::now().naive_local(),
        };
        let failed = |why| {
            notes.push(format!("its chat template cannot be rendered ({why}): it was asked without"));
        };
        template.render(&chat).map_err(failed).ok()
    });
    // What a template wrote has its special tokens.
    let encoded = match &rendered {
        Some(text) => tokenizer.encode(text, false),
        None => tokenizer.encode(ASKED, true),
    };
    encoded.map_err(|why| EngineError {
        kind: Kind::BadFile,
        message: format!(
            "{} cannot encode a prompt ({why}); download it again",
            dir.join("tokenizer.json").display()
        ),
    })
}

fn bad_file(error: &FileError) -> EngineError {
    EngineError { kind: Kind::BadFile, message: error.to_string() }
}

fn beyond(what: &str, token: u32, rows: usize, dir: &Path) -> EngineError {
    EngineError {
        kind: Kind::Vocabulary,
        message: format!(
            "the tokenizer makes {what} {token}, and the model's embedding has {rows} rows, for tokens up to {}: {} is \
             another model's, or the weights were cut; download both from the same place",
            rows.saturating_sub(1),
            dir.join("tokenizer.json").display()
        ),
    }
}

/// A text as one line of at most so many characters.
fn shown(text: &str) -> String {
    let mut line = String::new();
    for c in text.trim().chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    if line.chars().count() > ANSWER_CHARACTERS {
        line = line.chars().take(ANSWER_CHARACTERS - 1).chain("…".chars()).collect();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line() {
        assert_eq!(shown(" a\nb\u{1b}[0m\t日 "), "a\\nb\\u{1b}[0m\\t日");
        assert_eq!(shown(&"x".repeat(300)).chars().count(), 200);
        assert!(shown(&"x".repeat(201)).ends_with("x…"));
        assert_eq!(shown(&"x".repeat(200)), "x".repeat(200));
    }
}
