//! `mlxman note`: the user's note on a model.

use anyhow::Result;

use crate::args::Note;
use crate::context::Context;
use crate::exit::Verdict;
use crate::select::one;

pub(super) fn run(args: &Note, context: &Context) -> Result<Verdict> {
    let contents = context.contents()?;
    let row = one(context, &contents, &args.model)?.clone();
    let text = args.text.trim();
    let summaries = context.registry.edit_user(&[row], |user| {
        user.notes = (!text.is_empty()).then(|| text.to_owned());
    })?;
    for summary in &summaries {
        if context.printer.json {
            context.printer.json(
                &serde_json::json!({"model": summary.model, "notes": (!text.is_empty()).then_some(text)}),
            )?;
        } else {
            let what = if text.is_empty() { "note taken away" } else { "noted" };
            context.printer.status(&format!("{}: {what}", summary.model));
        }
    }
    Ok(Verdict::Fine)
}
