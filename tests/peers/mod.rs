//! mlxman and huggingface_hub on the same cache. These tests need a Python that has the library, named by
//! `MLXMAN_TEST_PYTHON` as `cargo xtask test` does; without one they say so and pass.

mod agreement;
mod downloads;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::lab::Lab;

/// The library, in a process of its own that works on the lab's cache.
pub(crate) struct Library {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Library {
    pub(crate) fn start(lab: &Lab) -> Option<Self> {
        let Some(python) = std::env::var_os("MLXMAN_TEST_PYTHON") else {
            crate::lab::left_out("MLXMAN_TEST_PYTHON names no Python that has huggingface_hub");
            return None;
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/peers/library.py");
        let mut command = lab.sandbox.command(python);
        command.arg(script).arg(lab.hub.root()).env("PYTHONDONTWRITEBYTECODE", "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python runs");
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        Some(Library { child, requests, answers })
    }

    /// Asks for something; the answer is waited for by [`Library::answer`].
    pub(crate) fn send(&mut self, request: &Value) {
        let requests = self.requests.as_mut().expect("a pipe");
        writeln!(requests, "{request}").expect("it listens");
    }

    #[track_caller]
    pub(crate) fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("the library ended: {error} in {line:?}"))
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, request: &Value) -> Value {
        self.send(request);
        self.answer()
    }

    /// Puts a revision on the Hub, and gives its commit.
    #[track_caller]
    pub(crate) fn publish(&mut self, repo: &str, files: &Value, reference: Option<&str>) -> String {
        self.ask(&json!(["publish", repo, files, reference])).as_str().expect("a commit").to_owned()
    }

    /// Downloads a revision, which has to work.
    #[track_caller]
    pub(crate) fn download(&mut self, repo: &str, revision: &str) {
        assert_eq!(self.ask(&json!(["download", repo, revision])), Value::Null);
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.requests.take());
        let _ = self.child.wait();
    }
}

/// What an apply did: its only store.
fn applied(lab: &Lab, models: &[&str]) -> Value {
    let done = lab.json(["clean", "apply", "--yes", "--models"].iter().chain(models));
    done["stores"].get(0).cloned().unwrap_or_default()
}
