//! `mlxman man`.

use anyhow::{Context as _, Result};
use clap::CommandFactory;

use crate::args::{Args, Man};
use crate::context::Context;
use crate::exit::Verdict;

pub(super) fn run(args: &Man, context: &Context) -> Result<Verdict> {
    if let Some(dir) = &args.dir {
        clap_mangen::generate_to(Args::command(), dir)
            .with_context(|| format!("the manual's pages cannot be written into {}", dir.display()))?;
        return Ok(Verdict::Fine);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Args::command()).render(&mut page)?;
    context.printer.data(&String::from_utf8_lossy(&page))?;
    Ok(Verdict::Fine)
}
