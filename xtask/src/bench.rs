//! `cargo xtask bench`

use std::process::ExitCode;

use anyhow::Result;

use crate::step::{cargo, check, step};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the libraries' parts, not whole programs side by side
    #[arg(long)]
    parts: bool,
    /// Passed on to the benchmarks: `--repos N --rounds N --mebibytes N` to that of whole programs, a name's part to
    /// that of the libraries' parts
    #[arg(last = true)]
    rest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let bench = |title: &str, name: &str, rest: &[String]| {
        step(title, || {
            check(cargo().args(["bench", "--package", "mlxman", "--bench", name, "--"]).args(rest))
        })
    };
    if args.parts {
        bench("parts of the libraries", "parts", &args.rest)?;
    } else {
        bench("parts of the libraries", "parts", &[])?;
        bench("whole programs", "programs", &args.rest)?;
    }
    Ok(ExitCode::SUCCESS)
}
