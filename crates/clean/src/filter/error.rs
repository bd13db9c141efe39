//! What can be wrong with a filter.

use thiserror::Error;

/// A filter that can't be understood: which, where in it, and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{} `{given}`{}: {kind}", .option, place(.at))]
pub struct FilterError {
    /// The option it was given to, such as `--filter`.
    pub option: &'static str,
    /// The value as given.
    pub given: String,
    /// The character of `given` that it is about, from 1.
    pub at: Option<usize>,
    /// What is wrong.
    pub kind: Box<FilterErrorKind>,
}

fn place(at: &Option<usize>) -> String {
    at.map_or_else(String::new, |at| format!(", character {at}"))
}

/// What is wrong with a filter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FilterErrorKind {
    /// Nothing, or only blanks, where a value is due. It is refused, since a filter that is left out selects more.
    #[error("it is empty; leave the option out to set no such condition")]
    Empty,
    /// There is no such field.
    #[error("unknown field `{field}`; {}", known(.near, .all))]
    UnknownField {
        /// The name as given.
        field: String,
        /// Names that it could be a slip for, best first.
        near: Vec<&'static str>,
        /// All the names there are.
        all: Vec<&'static str>,
    },
    /// Something else is due here.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What is due.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// The operator is none for this kind of field.
    #[error("`{field}` is {kind}, which takes {allowed}, not `{operator}`")]
    WrongOperator {
        /// The field.
        field: &'static str,
        /// What the field is, such as `a text`.
        kind: &'static str,
        /// The operator as given.
        operator: &'static str,
        /// The operators it takes.
        allowed: &'static str,
    },
    /// The value is none for this kind of field.
    #[error("`{field}` is {kind}; `{value}` is not{}; write {example}", because(.why))]
    WrongValue {
        /// The field.
        field: &'static str,
        /// What the field is, such as `a number of bytes`.
        kind: &'static str,
        /// The value as given.
        value: String,
        /// More on what is wrong with it.
        why: Option<String>,
        /// Values that would do.
        example: &'static str,
    },
    /// An age can't be equal to a length of time.
    #[error("`{field}` is never exactly an age; use `>` or `<`, or `=` with a date such as 2026-01-31")]
    InexactAge {
        /// The field.
        field: &'static str,
    },
    /// A glob that is malformed.
    #[error("not a valid glob: {why}")]
    Glob {
        /// What is wrong with it.
        why: String,
    },
}

fn known(near: &[&str], all: &[&str]) -> String {
    if near.is_empty() {
        return format!("the fields are {}", all.join(", "));
    }
    let near: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
    format!("did you mean {}?", near.join(" or "))
}

fn because(why: &Option<String>) -> String {
    why.as_ref().map_or_else(String::new, |why| format!(" ({why})"))
}
