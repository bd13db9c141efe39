//! `mlxman clean preview`: what could go. Nothing is touched.

use anyhow::{Context as _, Result};
use mlxman_clean::filter::FilterSet;
use mlxman_clean::{Candidate, Plan, preview};
use mlxman_store::Severity;

use crate::args::Preview;
use crate::context::Context;
use crate::exit::Verdict;
use crate::planning::{asked, policies};
use crate::select::filter_set;
use crate::table::{last_use, number, plural, reclaim, render, text};
use crate::trash::recover;

pub(super) fn run(args: &Preview, context: &Context) -> Result<Verdict> {
    let policies = policies(&args.policies, context)?;
    // Of the filters, --store is the one that says where to look, not what matches.
    let filters = FilterSet::parse(&args.filters.args(Vec::new()))?;
    let stores = context.some_stores()?;
    filter_set(context, &args.filters)?;
    recover(context, &stores);
    asked(context, (&filters, &policies), &stores, None, |survey, asked, read| {
        if let Some(model) = &args.explain {
            return super::clean_explain::run(model, survey, asked, context);
        }
        let plan = preview(survey, asked);
        if let Some(path) = &args.out {
            let mut bytes = serde_json::to_vec_pretty(&plan)?;
            bytes.push(b'\n');
            mlxman_manifest::registry::write_whole(path, &bytes)
                .with_context(|| format!("the plan cannot be written to {}", path.display()))?;
            context.printer.status(&format!("the plan is in {}", path.display()));
        }
        if context.printer.json {
            context.printer.json(&plan)?;
        } else {
            table(&plan, context)?;
            context.printer.status(&in_total(&plan));
        }
        let verdict = Verdict::of_stores(read, is_wrong(&plan));
        // The program ends here; a plan of a large store would take its time to be freed.
        std::mem::forget(plan);
        Ok(verdict)
    })
}

/// Whether something is wrong that a plan tells: a store or a manifest, or a target that cannot be met.
pub(super) fn is_wrong(plan: &Plan) -> bool {
    !plan.shortfalls.is_empty()
        || plan.problems.iter().any(|problem| problem.problem.severity > Severity::Info)
}

/// Shows a plan's rows, what it keeps, and what is wrong.
pub(super) fn table(plan: &Plan, context: &Context) -> Result<()> {
    let printer = &context.printer;
    for problem in &plan.problems {
        printer.warning(&problem.problem.message);
    }
    let columns = [text("WHAT", 0), number("FREES", 0), number("USED", 2), text("WHY", 1)];
    let cells: Vec<Vec<String>> = plan
        .candidates
        .iter()
        .map(|row| {
            vec![
                what(row),
                reclaim(row.reclaimable_bytes, row.reclaimable_at_least),
                last_use(row.last_used.or(row.last_modified), row.last_used_by, context.now),
                match (&row.problem, &row.irreplaceable_reason) {
                    (Some(problem), _) => format!("{problem}: {}", row.reason),
                    (None, Some(why)) => format!("CANNOT BE HAD AGAIN ({why}): {}", row.reason),
                    (None, None) => row.reason.clone(),
                },
            ]
        })
        .collect();
    if !cells.is_empty() {
        printer.data(&render(printer, &columns, &cells))?;
    }
    if !plan.kept.is_empty() {
        let columns = [text("KEPT", 0), text("WHY", 0)];
        let cells: Vec<Vec<String>> =
            plan.kept.iter().map(|kept| vec![kept.model.clone(), kept.reason.clone()]).collect();
        printer.data("")?;
        printer.data(&render(printer, &columns, &cells))?;
    }
    for shortfall in &plan.shortfalls {
        printer.warning(&shortfall.message);
    }
    for miss in &plan.near_misses {
        printer.status(&miss.to_string());
    }
    if !plan.policies_in_words.is_empty() {
        printer.status(&format!("policies: {}", plan.policies_in_words.join("; ")));
    }
    Ok(())
}

pub(super) fn in_total(plan: &Plan) -> String {
    let by_policy = !plan.policies_in_words.is_empty();
    match (plan.candidates.len(), plan.filters_in_words.is_empty()) {
        (0, _) if by_policy => "the policies name nothing that may go".to_owned(),
        (0, true) => {
            "there are no leftovers to remove; to remove models, choose them with filters".to_owned()
        }
        (0, false) if !plan.kept.is_empty() => "all that matches is kept, as told above".to_owned(),
        (0, false) => "no model matches".to_owned(),
        (rows, _) => format!(
            "{}: the disk would get back {} ({} bytes); nothing was touched; `mlxman clean apply` does it",
            plural(rows, "row"),
            reclaim(plan.total_reclaimable_bytes, plan.total_reclaimable_at_least),
            plan.total_reclaimable_bytes
        ),
    }
}

fn what(row: &Candidate) -> String {
    row.model.clone().or_else(|| row.path.clone()).unwrap_or_default()
}
