//! Running programs, and saying what is happening on stderr.
#![expect(clippy::print_stderr, reason = "a program for a terminal")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The cargo that runs this.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Writes a line to stderr.
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// Does `work` under a heading, and says how long it took.
pub(crate) fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(&format!("== {title}"));
    let start = Instant::now();
    let done = work();
    let seconds = start.elapsed().as_secs_f64();
    say(&format!("== {title}: {} in {seconds:.1} s", if done.is_ok() { "done" } else { "failed" }));
    done
}

/// Runs a command to its end, with this process's input and outputs.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("`{}` can't be run", line(command)))
}

/// The same; anything but success is an error.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Runs a command and returns what it printed; anything but success is an error with what it wrote to stderr.
pub(crate) fn read(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("`{}` can't be run", line(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({})\n{}", line(command), output.status, stderr.trim_end());
    }
    Ok(output.stdout)
}

/// A command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_else(|| command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Builds mlxman and its worker with MLX, and returns the path of the program.
pub(crate) fn build_mlxman(release: bool) -> Result<PathBuf> {
    crate::mlx::ready()?;
    step("build mlxman", || {
        let mut command = cargo();
        command.args(["build", "--package", "mlxman", "--package", "mlxman-worker", "--bins"]);
        command.args(crate::mlx::FEATURES);
        command.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
        if release {
            command.arg("--release");
        }
        let messages = read(&mut command)?;
        let executable = |line: &[u8]| {
            let message: Value = serde_json::from_slice(line).ok()?;
            let path = PathBuf::from(message["executable"].as_str()?);
            (message["target"]["name"] == "mlxman").then_some(path)
        };
        messages
            .split(|byte| *byte == b'\n')
            .find_map(executable)
            .context("cargo named no program that it built")
    })
}
