//! `cargo xtask bench`

use std::process::ExitCode;

use anyhow::Result;

use crate::step::{cargo, check, step};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to the benchmarks, such as a name's part
    #[arg(last = true)]
    rest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    step("benchmarks", || {
        let mut command = cargo();
        command.args(["bench", "--workspace", "--benches"]);
        if !args.rest.is_empty() {
            command.arg("--").args(&args.rest);
        }
        check(&mut command)
    })?;
    Ok(ExitCode::SUCCESS)
}
