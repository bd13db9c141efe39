//! `mlxman completions`.

use anyhow::Result;
use clap::CommandFactory;

use crate::args::{Args, Completions};
use crate::context::Context;
use crate::exit::Verdict;

pub(super) fn run(args: &Completions, context: &Context) -> Result<Verdict> {
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "mlxman", &mut out);
    context.printer.data(&String::from_utf8_lossy(&out))?;
    Ok(Verdict::Fine)
}
