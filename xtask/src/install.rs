//! `cargo xtask install`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::step::{cargo, check, root, step};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory whose `bin` gets the program, instead of cargo's own
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    step("install mlxman", || {
        let mut command = cargo();
        command.args(["install", "--locked", "--path"]).arg(root().join("crates/cli"));
        if let Some(dir) = &args.root {
            command.arg("--root").arg(std::path::absolute(dir)?);
        }
        check(&mut command)
    })?;
    Ok(ExitCode::SUCCESS)
}
