//! `cargo xtask test`: every check that a change has to pass.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::step::{cargo, check, say, status, step};
use crate::{generate, mlx, peers};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leaves out the comparison with huggingface_hub, which is installed under `.tools/` for it
    #[arg(long)]
    no_peers: bool,
    /// Leaves out MLX, which is set up under `.mlx/` for it: nothing is loaded or generated
    #[arg(long)]
    no_engine: bool,
    /// Inputs that each fuzz target tries
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    fuzz_iterations: u32,
    /// Passed on to the test runner, such as a name's part
    #[arg(last = true)]
    rest: Vec<String>,
}

/// The tests themselves run last and nothing is printed after them, so that the output ends with the runner's summary.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    step("rustfmt", || {
        check(cargo().args(["fmt", "--all", "--check"])).context("`cargo fmt` puts the formatting right")
    })?;
    let features: &[&str] = if args.no_engine {
        &[]
    } else {
        mlx::ready()?;
        &mlx::FEATURES
    };
    step("clippy", || {
        let mut clippy = cargo();
        clippy.args(["clippy", "--quiet", "--workspace", "--all-targets"]).args(features);
        check(clippy.args(["--", "-D", "warnings"]))
    })?;
    step("generated files", || generate::generate(true))?;
    step("examples in the documentation", || {
        check(cargo().args(["test", "--quiet", "--doc", "--workspace"]).args(features))
    })?;
    step("fuzz targets", || {
        let iterations = args.fuzz_iterations.to_string();
        check(cargo().args(["run", "--quiet", "--package", "mlxman-fuzz", "--", "--iterations", &iterations]))
    })?;
    let mut tests = runner(features);
    if !args.no_peers {
        tests.env("MLXMAN_TEST_PYTHON", step("huggingface_hub, to compare with", peers::python)?);
    }
    say("== tests");
    let status = status(tests.args(&args.rest))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// cargo-nextest where it is installed, else cargo's own runner. Neither runs the examples in the documentation.
fn runner(features: &[&str]) -> Command {
    let nextest = cargo().args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    let mut command = cargo();
    if nextest {
        command.args(["nextest", "run", "--workspace", "--no-fail-fast"]).args(features);
    } else {
        command.args(["test", "--workspace", "--lib", "--bins", "--tests", "--examples", "--no-fail-fast"]);
        command.args(features).arg("--");
    }
    command
}
