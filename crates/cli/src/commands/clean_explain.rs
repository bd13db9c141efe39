//! `mlxman clean preview --explain`: what each policy and each guard makes of one model.

use anyhow::Result;
use mlxman_clean::filter::nearest;
use mlxman_clean::{Asked, Explanation, Outcome, explain};
use mlxman_manifest::Summary;
use mlxman_manifest::registry::Survey;

use crate::context::Context;
use crate::exit::{Verdict, wrong};
use crate::printer::plain;
use crate::table::{render, text};

pub(super) fn run(model: &str, survey: &Survey, asked: Asked<'_>, context: &Context) -> Result<Verdict> {
    for store in &survey.stores {
        if let Err(error) = &store.scan {
            context.printer.warning(&error.to_string());
        }
    }
    let summary = one(model, survey)?;
    let Some(found) = explain(survey, asked, &summary.store, &summary.key) else {
        return Err(wrong(format!("{} is not in its store any more", summary.model)));
    };
    if context.printer.json {
        context.printer.json(&found)?;
    } else {
        page(&found, context)?;
    }
    Ok(Verdict::of_stores(survey.stores.iter().filter(|store| store.scan.is_ok()).count(), false))
}

/// The one model that a name means: of several snapshots of a repo the one a loader gets.
fn one<'a>(asked: &str, survey: &'a Survey) -> Result<&'a Summary> {
    let all = || survey.stores.iter().flat_map(|store| &store.models).map(|model| &model.summary);
    let mut found: Vec<&Summary> = all().filter(|summary| summary.answers_to(asked)).collect();
    let keep = |found: &mut Vec<&Summary>, wanted: &dyn Fn(&Summary) -> bool| {
        if found.len() > 1 && found.iter().any(|one| wanted(one)) {
            found.retain(|one| wanted(one));
        }
    };
    keep(&mut found, &|one| one.model == asked);
    keep(&mut found, &|one| one.current != Some(false));
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            let near = nearest(asked, all().map(|one| one.model.as_str()), 3);
            Err(wrong(match near.is_empty() {
                true => format!("no model answers to `{asked}`; `mlxman list` shows those that there are"),
                false => format!("no model answers to `{asked}`; near: {}", near.join(", ")),
            }))
        }
        several => {
            let names: Vec<String> =
                several.iter().map(|one| format!("{}:{}", one.store, one.model)).collect();
            Err(wrong(format!("`{asked}` means {} models; say which: {}", several.len(), names.join(", "))))
        }
    }
}

fn page(found: &Explanation, context: &Context) -> Result<()> {
    let printer = &context.printer;
    let outcome = match found.outcome {
        Outcome::Candidate => "would go",
        Outcome::Kept => "is kept",
        Outcome::NotNamed => "is not named",
    };
    printer.data(&format!("{} {outcome}: {}", plain(&found.model), plain(&found.reason)))?;
    if !found.matches_filters {
        printer.data("the filters leave it out")?;
    }
    if let Some(why) = &found.irreplaceable_reason {
        printer.data(&format!("it cannot be had again: {}", plain(why)))?;
    }
    let columns = [text("POLICY", 0), text("GIVEN", 2), text("NAMES IT", 0), text("WHY", 0)];
    let cells: Vec<Vec<String>> = found
        .answers
        .iter()
        .map(|answer| {
            let names = match (answer.names, answer.kept_by) {
                (None, _) => "-".to_owned(),
                (Some(true), Some(rule)) => format!("kept: {}", rule.word()),
                (Some(true), None) => "yes".to_owned(),
                (Some(false), _) => "no".to_owned(),
            };
            let given = if answer.asked { "yes" } else { "" };
            vec![answer.policy.clone(), given.to_owned(), names, answer.reason.clone()]
        })
        .collect();
    printer.data("")?;
    printer.data(&render(printer, &columns, &cells))?;
    let columns = [text("GUARD", 0), text("KEEPS IT", 0), text("WHY", 0)];
    let cells: Vec<Vec<String>> = found
        .guards
        .iter()
        .map(|guard| {
            let keeps = guard.kept_by.map_or_else(|| "no".to_owned(), |rule| rule.word());
            vec![guard.guard.clone(), keeps, guard.reason.clone().unwrap_or_default()]
        })
        .collect();
    printer.data("")?;
    printer.data(&render(printer, &columns, &cells))?;
    Ok(())
}
