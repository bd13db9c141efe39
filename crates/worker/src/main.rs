//! The process that a model is loaded in: `mlxman verify` starts it, and talks with it as
//! [`mlxman_verify::protocol`] says.
//!
//! It is a program of its own, so that `mlxman` starts without loading MLX, and whatever MLX does to its process is one
//! model's result.

#[cfg(feature = "mlx")]
mod job;
#[cfg(feature = "mlx")]
mod measure;
#[cfg(feature = "mlx")]
mod words;

use std::io::{self, BufRead as _, Write as _};
use std::process::ExitCode;

use mlxman_verify::protocol::{Event, Failure, FailureKind, Report, Request, VERSION};

/// Where events go, a line each.
struct Out(io::Stdout);

impl Out {
    fn say(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.0.write_all(&line)?;
        self.0.flush()
    }
}

fn main() -> ExitCode {
    match serve(&mut Out(io::stdout())) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody listens any more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(out: &mut Out) -> io::Result<()> {
    let mut engine = Engine::start();
    out.say(&Event::Ready { protocol: VERSION, engine: engine.info() })?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (id, report) = match serde_json::from_str::<Request>(&line) {
            Ok(request) => (request.id, engine.answer(&request, out)),
            Err(error) => {
                let message = format!("the worker was asked something it does not know: {error}");
                let failure = Failure { kind: FailureKind::Engine, message };
                (0, Report { failure: Some(failure), ..Report::default() })
            }
        };
        out.say(&Event::Done { id, report: Box::new(report) })?;
    }
    Ok(())
}

/// What models are run with.
#[cfg(feature = "mlx")]
use job::Engine;

/// Nothing: this worker was built without MLX.
#[cfg(not(feature = "mlx"))]
struct Engine;

#[cfg(not(feature = "mlx"))]
impl Engine {
    fn start() -> Self {
        Engine
    }

    fn info(&self) -> Option<mlxman_verify::protocol::EngineInfo> {
        None
    }

    fn answer(&mut self, _: &Request, _: &mut Out) -> Report {
        let message = "this mlxman-worker was built without MLX".to_owned();
        let failure = Failure { kind: FailureKind::Engine, message };
        Report { failure: Some(failure), ..Report::default() }
    }
}
