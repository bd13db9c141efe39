//! `mlxman pin` and `mlxman unpin`.

use anyhow::Result;
use mlxman_manifest::registry::Row;

use crate::args::Models;
use crate::context::Context;
use crate::exit::Verdict;
use crate::select::one;

pub(super) fn run(args: &Models, context: &Context, pinned: bool) -> Result<Verdict> {
    let contents = context.contents()?;
    let mut rows: Vec<Row> = Vec::new();
    for asked in &args.models {
        rows.push(one(context, &contents, asked)?.clone());
    }
    let summaries = context.registry.edit_user(&rows, |user| user.pinned = pinned)?;
    if context.printer.json {
        let rows: Vec<_> = summaries
            .iter()
            .map(|summary| serde_json::json!({"model": summary.model, "store": summary.store, "pinned": summary.pinned}))
            .collect();
        context.printer.json(&rows)?;
        return Ok(Verdict::Fine);
    }
    for summary in &summaries {
        let what = if pinned { "pinned: it is never a candidate for removal" } else { "no longer pinned" };
        context.printer.status(&format!("{}: {what}", summary.model));
    }
    Ok(Verdict::Fine)
}
