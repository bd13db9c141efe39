//! How a run ends: its exit status, and what is said of an error.

use std::process::ExitCode;

use crate::printer::Printer;

/// How a command ended that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    Problems,
    /// What could be told was told, but there was nothing to do the work on.
    Failed,
    /// What a shell says of a command that it could not start.
    NotStarted(u8),
}

impl Verdict {
    pub(crate) fn of(problems: bool) -> Self {
        if problems { Verdict::Problems } else { Verdict::Fine }
    }

    /// Of a command that reads stores: it failed where it could read none of them.
    pub(crate) fn of_stores(read: usize, problems: bool) -> Self {
        if read == 0 { Verdict::Failed } else { Verdict::of(problems) }
    }
}

/// The call was wrong: exit 2, where other errors are exit 3.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Wrong {
    message: String,
}

/// An error of the call itself.
pub(crate) fn wrong(message: impl Into<String>) -> anyhow::Error {
    Wrong { message: message.into() }.into()
}

/// What clap says: help and versions are success.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

pub(crate) fn report(result: anyhow::Result<Verdict>, printer: &Printer) -> ExitCode {
    let error = match result {
        Ok(Verdict::Fine) => return ExitCode::SUCCESS,
        Ok(Verdict::Problems) => return ExitCode::from(1),
        Ok(Verdict::Failed) => return ExitCode::from(3),
        Ok(Verdict::NotStarted(status)) => return ExitCode::from(status),
        Err(error) => error,
    };
    // Whoever read our output has had enough: that is success.
    let pipe = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    if pipe.into_iter().any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    printer.error(&in_words(&error));
    let call = error.chain().any(|cause| {
        cause.is::<Wrong>()
            || cause.is::<mlxman_clean::filter::FilterError>()
            || cause.is::<mlxman_clean::PolicyError>()
            || matches!(
                cause.downcast_ref::<mlxman_manifest::registry::RegistryError>(),
                Some(mlxman_manifest::registry::RegistryError::Override { .. })
            )
    });
    ExitCode::from(if call { 2 } else { 3 })
}

/// The error and its causes; a cause that an error above it already tells is not told again.
fn in_words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
