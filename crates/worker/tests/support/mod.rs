//! A real worker, asked as mlxman asks it.
#![allow(dead_code, reason = "each test uses what it needs")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use mlxman_verify::protocol::{DtypeChoice, Event, Level, Measure, Question, Report, Request};

/// A worker that is asked one thing after the other.
pub(crate) struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    asked: u64,
}

impl Worker {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mlxman-worker"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the worker starts");
        let input = child.stdin.take().expect("its input");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let mut worker = Worker { child, input, output, asked: 0 };
        assert!(matches!(worker.hear(), Event::Ready { engine: Some(_), .. }));
        worker
    }

    fn hear(&mut self) -> Event {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line of the worker");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: `{line}`"))
    }

    pub(crate) fn ask(&mut self, model: &Path, dtype: DtypeChoice, question: Option<Question>) -> Report {
        self.ask_over(model, None, dtype, question)
    }

    pub(crate) fn ask_over(
        &mut self,
        model: &Path,
        adapter: Option<&Path>,
        dtype: DtypeChoice,
        question: Option<Question>,
    ) -> Report {
        self.asked += 1;
        let request = Request {
            id: self.asked,
            model: model.to_owned(),
            adapter: adapter.map(Path::to_owned),
            level: Level::Generate,
            dtype,
            measure: Measure { trials: 0, ..Measure::default() },
            answers: question,
        };
        let line = serde_json::to_string(&request).expect("a request");
        writeln!(self.input, "{line}").expect("the worker listens");
        loop {
            if let Event::Done { id, report } = self.hear() {
                assert_eq!(id, self.asked);
                return *report;
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
