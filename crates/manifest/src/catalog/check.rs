//! Reading one entry, and what its fields may hold.

use globset::GlobBuilder;
use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;
use thiserror::Error;

use super::{CatalogEntry, EntryError, SCHEMA_VERSION};

/// Why a text can't be a model's short name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is nothing.
    #[error("a name can't be empty")]
    Empty,
    /// It is longer than a file's name may be.
    #[error("a name can't have more than 200 bytes")]
    TooLong,
    /// It would be hidden, or taken for an option.
    #[error("a name can't begin with `.` or `-`")]
    Start,
    /// It could leave the directory.
    #[error("a name can't contain `/`, `\\`, `..` or a control character")]
    Separator,
}

/// Whether `name` can be a model's short name, and so that of a file: not empty, no `/`, `\`, `..` or control character
/// in it, no `.` or `-` at its start.
///
/// # Errors
/// Why it can't be.
pub fn validate_name(name: &str) -> Result<(), NameError> {
    if name.trim().is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > 200 {
        return Err(NameError::TooLong);
    }
    if name.contains(['/', '\\']) || name.contains("..") || name.contains(char::is_control) {
        return Err(NameError::Separator);
    }
    if name.starts_with(['.', '-']) {
        return Err(NameError::Start);
    }
    Ok(())
}

/// Reads one entry and checks its fields.
pub(super) fn parse(text: &str) -> Result<CatalogEntry, EntryError> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| EntryError { field: None, why: format!("it is not JSON: {error}") })?;
    // Before the rest, since a newer form may have fields that this one does not know.
    if let Some(version) = value.get("schema_version").and_then(Value::as_u64)
        && version != u64::from(SCHEMA_VERSION)
    {
        return wrong("schema_version", format!("it is {version}; only {SCHEMA_VERSION} can be read"));
    }
    let entry: CatalogEntry = serde_json::from_str(text).map_err(|error| {
        let why = error.to_string();
        EntryError { field: field_of(&value, &why), why }
    })?;
    check(&entry)?;
    Ok(entry)
}

/// The field that a message of serde's is about: from the schema where that finds it, else from the message.
fn field_of(value: &Value, why: &str) -> Option<String> {
    let schema = schemars::schema_for!(CatalogEntry);
    let validator = jsonschema::validator_for(schema.as_value()).ok()?;
    let parent = deepest(&validator.iter_errors(value).next()?).trim_start_matches('/').replace('/', ".");
    let named = ["missing field `", "unknown field `"]
        .iter()
        .find_map(|start| why.strip_prefix(start)?.split_once('`').map(|(name, _)| name.to_owned()));
    match (parent.is_empty(), named) {
        (true, named) => named,
        (false, Some(named)) => Some(format!("{parent}.{named}")),
        (false, None) => Some(parent),
    }
}

/// The place that an error is about: within the alternatives, if there are any, the farthest one.
fn deepest(error: &ValidationError<'_>) -> String {
    let own = error.instance_path().to_string();
    match error.kind() {
        ValidationErrorKind::AnyOf { context } => {
            context.iter().flatten().map(deepest).chain([own]).max_by_key(String::len).unwrap_or_default()
        }
        _ => own,
    }
}

fn wrong<T>(field: impl Into<String>, why: impl Into<String>) -> Result<T, EntryError> {
    Err(EntryError { field: Some(field.into()), why: why.into() })
}

fn check(entry: &CatalogEntry) -> Result<(), EntryError> {
    if let Err(error) = validate_name(&entry.name) {
        return wrong("name", error.to_string());
    }
    check_repo_id("source.repo_id", &entry.source.repo_id)?;
    for (at, alias) in entry.source.aliases.iter().enumerate() {
        let field = format!("source.aliases.{at}");
        check_repo_id(&field, alias)?;
        if entry.sources().take(at + 1).any(|earlier| earlier.eq_ignore_ascii_case(alias)) {
            return wrong(field, format!("`{alias}` stands there twice"));
        }
    }
    let mut words =
        vec![("format".to_owned(), &entry.format), ("description".to_owned(), &entry.description)];
    words.extend(entry.quantization.iter().map(|of| ("quantization.label".to_owned(), &of.label)));
    words.extend(entry.tags.iter().enumerate().map(|(at, tag)| (format!("tags.{at}"), tag)));
    for (field, word) in words {
        if word.trim().is_empty() {
            return wrong(field, "it is empty");
        }
    }
    for (at, glob) in entry.required_files.iter().enumerate() {
        let field = format!("required_files.{at}");
        if glob.is_empty() || glob.starts_with('/') || glob.split('/').any(|part| part == "..") {
            return wrong(field, format!("`{glob}` is not a path within the model"));
        }
        if let Err(error) = GlobBuilder::new(glob).literal_separator(true).build() {
            return wrong(field, format!("`{glob}` is not a valid glob: {}", error.kind()));
        }
    }
    Ok(())
}

/// Whether it is a repository's id on the Hub: `name` or `org/name` of letters, digits, `-`, `_` and `.`.
fn check_repo_id(field: &str, id: &str) -> Result<(), EntryError> {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
    };
    let sound = id.split('/').count() <= 2
        && id.split('/').all(is_part)
        && !id.contains("--")
        && !id.contains("..")
        && id.len() <= 96;
    if sound { Ok(()) } else { wrong(field, format!("`{id}` is not a repository of the form `org/name`")) }
}
