//! Runs the fuzz targets on stable Rust: each target's corpus, then deterministic mutations of it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use std::process::ExitCode;
use std::time::Instant;

use mlxman_fuzz::corpus;
use mlxman_fuzz::mutate::{Rng, mutate};
use mlxman_fuzz::targets::{self, Target};

const HELP: &str = "\
Usage: mlxman-fuzz [TARGET]... [--iterations N] [--seed S]
       mlxman-fuzz --write-seeds

Runs the corpus of each target, of all of them by default, then N mutations of it (10000 by default), which follow
from the seed S (0 by default) alone. An input that fails is kept in fuzz/artifacts/<target>/.

Exit codes: 0 nothing failed; 1 an input failed; 2 the call was wrong; 3 a file could not be read or written.";

struct Call {
    targets: Vec<Target>,
    iterations: u64,
    seed: u64,
    write_seeds: bool,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Call>, String> {
    let mut call = Call { targets: Vec::new(), iterations: 10_000, seed: 0, write_seeds: false };
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args.next().ok_or(format!("{arg} needs a number"))?;
            value.parse().map_err(|_| format!("{arg} needs a number, not {value:?}"))
        };
        match arg.as_str() {
            "--help" | "-h" => return Ok(None),
            "--iterations" => call.iterations = number()?,
            "--seed" => call.seed = number()?,
            "--write-seeds" => call.write_seeds = true,
            name => call.targets.push(targets::find(name).ok_or_else(|| {
                let names: Vec<_> = targets::ALL.iter().map(|t| t.name).collect();
                format!("no target {name:?}; there are {}", names.join(", "))
            })?),
        }
    }
    if call.targets.is_empty() {
        call.targets = targets::ALL.to_vec();
    }
    Ok(Some(call))
}

fn main() -> ExitCode {
    let call = match parse(std::env::args().skip(1)) {
        Ok(Some(call)) => call,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("{message}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    // The message of a panic goes into its target's line, once.
    std::panic::set_hook(Box::new(|_| {}));
    let mut failed = false;
    for &target in &call.targets {
        match run(target, &call) {
            Ok(sound) => failed |= !sound,
            Err(error) => {
                eprintln!("{}: {error}", target.name);
                return ExitCode::from(3);
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

/// Runs one target and prints its line; `false` where an input failed.
fn run(target: Target, call: &Call) -> std::io::Result<bool> {
    let name = target.name;
    if call.write_seeds {
        println!("{name}: {} seeds written", corpus::write_seeds(target)?);
        return Ok(true);
    }
    let start = Instant::now();
    let files = corpus::read(target)?;
    for (path, bytes) in &files {
        if let Err(message) = corpus::check(target, bytes) {
            println!("{name}: FAILED on {}: {message}", path.display());
            return Ok(false);
        }
    }
    let inputs: Vec<_> = files.into_iter().map(|(_, bytes)| bytes).collect();
    let mut rng = Rng::new(call.seed);
    for iteration in 0..call.iterations {
        let input = mutate(&mut rng, &inputs);
        if let Err(message) = corpus::check(target, &input) {
            let path = corpus::keep_failure(target, &format!("seed-{}-{iteration}", call.seed), &input)?;
            println!(
                "{name}: FAILED after {iteration} mutations: {message}; the input is {}",
                path.display()
            );
            return Ok(false);
        }
    }
    let (corpus, iterations) = (inputs.len(), call.iterations);
    println!("{name}: {corpus} files and {iterations} mutations passed in {:.1?}", start.elapsed());
    Ok(true)
}
