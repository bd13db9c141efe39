//! A model's chat template: from messages to the prompt that the model was trained on.
//!
//! Templates are written for transformers, which renders them with Python's Jinja; here minijinja does, set up so that
//! the text is the same.

mod python;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use chrono::NaiveDateTime;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};
use serde::Serialize;

use crate::files::{self, FileError};

/// Steps that a template may take: some thousand times what a prompt needs, and an end to one that never would.
const FUEL: u64 = 10_000_000;

/// A message of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Message<'a> {
    /// `user`, `assistant` or `system`.
    pub role: &'a str,
    /// What it says.
    pub content: &'a str,
}

/// What is rendered.
#[derive(Debug, Clone, Copy)]
pub struct Chat<'a> {
    /// The messages.
    pub messages: &'a [Message<'a>],
    /// Special tokens by their names, `bos_token` and so on.
    pub special: &'a BTreeMap<String, String>,
    /// Whether the model is to think first, where it can.
    pub enable_thinking: bool,
    /// What `strftime_now` tells.
    pub now: NaiveDateTime,
}

/// A template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    source: String,
}

impl ChatTemplate {
    /// A template's source, as it stands in a file.
    pub fn new(source: &str) -> Self {
        ChatTemplate { source: without_generation_tags(source) }
    }

    /// The template of the model in a directory: `chat_template.jinja`, else the one in `tokenizer_config.json`.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn find(dir: &Path) -> Result<Option<Self>, FileError> {
        if let Some(source) = files::read_text(&dir.join("chat_template.jinja"))? {
            return Ok(Some(ChatTemplate::new(&source)));
        }
        let Some(config) = files::read_json(&dir.join("tokenizer_config.json"))? else { return Ok(None) };
        let named =
            |template: &&serde_json::Value| template.get("name").is_some_and(|name| name == "default");
        let source = match config.get("chat_template") {
            Some(serde_json::Value::Array(list)) => list.iter().find(named).and_then(|it| it.get("template")),
            other => other,
        };
        Ok(source.and_then(serde_json::Value::as_str).map(ChatTemplate::new))
    }

    /// The prompt for a chat, up to where the model answers.
    ///
    /// # Errors
    /// When the template is damaged, does not take such messages, or does not end.
    pub fn render(&self, chat: &Chat<'_>) -> Result<String, String> {
        let none = Value::from(());
        let mut variables: BTreeMap<&str, Value> =
            chat.special.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str()))).collect();
        variables.insert("messages", Value::from_serialize(chat.messages));
        variables.insert("add_generation_prompt", Value::from(true));
        variables.insert("enable_thinking", Value::from(chat.enable_thinking));
        variables.insert("tools", none.clone());
        variables.insert("documents", none);
        self.render_with(Value::from_serialize(variables), chat.now)
    }

    fn render_with(&self, variables: Value, now: NaiveDateTime) -> Result<String, String> {
        let environment = environment(now);
        let template = environment.template_from_named_str("chat_template", &self.source);
        template.and_then(|template| template.render(variables)).map_err(|error| {
            let line = error.line().map(|line| format!(" in its line {line}")).unwrap_or_default();
            format!("{}{line}", error.detail().map_or_else(|| error.kind().to_string(), str::to_owned))
        })
    }
}

/// Jinja, as transformers sets it up.
fn environment(now: NaiveDateTime) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(python::method);
    environment.set_formatter(|out: &mut Output<'_>, _: &State<'_, '_>, value: &Value| {
        if !value.is_undefined() {
            out.write_str(&python::text(value))?;
        }
        Ok(())
    });
    environment.add_filter("tojson", |value: Value, options: Kwargs| -> Result<String, Error> {
        let json = python::Json {
            ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
            indent: options.get("indent")?,
            separators: options.get("separators")?,
            sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        };
        options.assert_all_used()?;
        json.of(&value)
    });
    environment.add_filter("string", |value: Value| python::text(&value));
    environment.add_filter("trim", |value: Value, of: Option<String>| {
        let is_of = |c: char| of.as_ref().map_or_else(|| c.is_whitespace(), |of| of.contains(c));
        python::text(&value).trim_matches(is_of).to_owned()
    });
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", move |format: String| -> Result<String, Error> {
        let mut text = String::new();
        write!(text, "{}", now.format(&format)).map_err(|_| {
            Error::new(ErrorKind::InvalidOperation, format!("`{format}` is no format of a time"))
        })?;
        Ok(text)
    });
    environment
}

/// A template without the tags that mark what the assistant says, which matter to whoever trains a model.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        text.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (inside, after) = tag.split_at(end);
        match inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => text.push_str(&inside.replace("generation", "if true")),
            "endgeneration" => text.push_str(&inside.replace("endgeneration", "endif")),
            _ => text.push_str(inside),
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests;
