//! `mlxman run`: a command with a model, offline.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Result;

use super::path::resolve;
use crate::args::Run;
use crate::context::Context;
use crate::exit::{Verdict, wrong};

/// Stands for the model's directory in the command.
const PLACE: &[u8] = b"{}";

/// The command takes this process's place, so that its exit status, and a signal that ends it, reach whoever called as they
/// are, and none of the terminal's signals has to be passed on.
pub(super) fn run(args: &Run, context: &Context) -> Result<Verdict> {
    let resolved = resolve(&args.model, context)?;
    let path = resolved.path.as_os_str();
    let mut words = args.command.iter().map(|word| with_place(word, path));
    let Some(program) = words.next() else { return Err(wrong("there is no command after `--`")) };
    context.record_use(&resolved.summary.store, &resolved.summary.key, "run");
    let error =
        Command::new(&program).args(words).env("HF_HUB_OFFLINE", "1").env("MLXMAN_MODEL_PATH", path).exec();
    let program = program.display();
    Ok(Verdict::NotStarted(if error.kind() == io::ErrorKind::NotFound {
        context
            .printer
            .error(&format!("there is no command `{program}`: name one that is in PATH, or its path"));
        127
    } else {
        context.printer.error(&format!("`{program}` cannot be run: {error}"));
        126
    }))
}

/// A word of the command with the model's directory in the places for it.
fn with_place(word: &OsStr, path: &OsStr) -> OsString {
    let mut rest = word.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let Some(at) = rest.windows(PLACE.len()).position(|bytes| bytes == PLACE) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(path.as_bytes());
        rest = &rest[at + PLACE.len()..];
    }
    out.extend_from_slice(rest);
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_the_model_may_stand_anywhere() {
        let of = |word: &str| with_place(OsStr::new(word), OsStr::new("/m d"));
        assert_eq!(of("{}"), "/m d");
        assert_eq!(of("--model={}/x={}"), "--model=/m d/x=/m d");
        assert_eq!(of("{ }{"), "{ }{");
        let odd = with_place(OsStr::from_bytes(b"\xff{}"), OsStr::from_bytes(b"/\xfe{}"));
        assert_eq!(odd.as_bytes(), b"\xff/\xfe{}");
    }
}
