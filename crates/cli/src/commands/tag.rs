//! `mlxman tag`: the user's tags.

use anyhow::Result;

use crate::args::Tag;
use crate::context::Context;
use crate::exit::{Verdict, wrong};
use crate::select::one;

pub(super) fn run(args: &Tag, context: &Context) -> Result<Verdict> {
    let (minus, add): (Vec<&str>, Vec<&str>) =
        args.tags.iter().map(String::as_str).partition(|tag| tag.starts_with('-'));
    let remove: Vec<&str> = args
        .remove
        .iter()
        .map(String::as_str)
        .chain(minus.iter().map(|tag| tag.trim_start_matches('-')))
        .collect();
    for tag in add.iter().chain(&remove) {
        check(tag)?;
    }
    let contents = context.contents()?;
    let row = one(context, &contents, &args.model)?.clone();
    let found = row.summary.tags.clone();
    let summaries = context.registry.edit_user(&[row], |user| {
        for tag in &add {
            user.untagged.retain(|gone| !gone.eq_ignore_ascii_case(tag));
            if !user.tags.iter().any(|own| own == tag) {
                user.tags.push((*tag).to_owned());
            }
        }
        for tag in &remove {
            let mine = user.tags.iter().any(|own| own.eq_ignore_ascii_case(tag));
            user.tags.retain(|own| !own.eq_ignore_ascii_case(tag));
            // A tag that was found comes back with every sync unless it is remembered as unwanted.
            if found.iter().any(|own| own.eq_ignore_ascii_case(tag)) && !mine {
                user.untagged.push((*tag).to_owned());
            }
        }
        user.tags.sort_unstable();
        user.untagged.sort_unstable();
        user.untagged.dedup();
    })?;
    for summary in &summaries {
        if context.printer.json {
            context.printer.json(&serde_json::json!({"model": summary.model, "tags": summary.tags}))?;
        } else {
            context.printer.status(&format!("{}: {}", summary.model, summary.tags.join(", ")));
        }
    }
    Ok(Verdict::Fine)
}

fn check(tag: &str) -> Result<()> {
    let plain = !tag.trim().is_empty() && tag.trim() == tag && !tag.contains([',', '\n', '*', '?', '[']);
    if plain {
        return Ok(());
    }
    Err(wrong(format!(
        "`{}` is no tag: it must not be empty, nor hold a comma, a line's end, * ? or [",
        tag.escape_debug()
    )))
}
