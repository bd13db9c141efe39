//! `mlxman clean hf`: what a hub cache holds, with what `hf cache ls` leaves out; and a plan over repo ids.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use mlxman_clean::filter::{FilterArgs, FilterSet};
use mlxman_clean::{HubCache, HubReport, LeftoverKind, Policies};
use mlxman_store::{Severity, StoreKind, StoreSpec, resolve};

use super::clean_apply::apply_plan;
use super::clean_preview::{in_total, table};
use crate::args::Hf;
use crate::context::Context;
use crate::exit::{Verdict, wrong};
use crate::planning::{Planned, plan};
use crate::table::{age, bytes, number, plural, render, text};
use crate::trash::recover;

pub(super) fn run(args: &Hf, context: &Context) -> Result<Verdict> {
    let stores = stores(args, context)?;
    recover(context, &stores);
    if args.scan { scan(args, context, &stores) } else { of_pattern(args, context, &stores) }
}

/// The caches: the one in `--hf-home`, or all that are known.
fn stores(args: &Hf, context: &Context) -> Result<Vec<StoreSpec>> {
    let Some(home) = &args.hf_home else {
        let mut stores = context.some_stores()?;
        stores.retain(|spec| spec.kind() == StoreKind::Hub);
        if stores.is_empty() {
            return Err(wrong(
                "none of the stores is a hub cache; name one with --hf-home or --store hub=PATH",
            ));
        }
        return Ok(stores);
    };
    if context.store_given {
        return Err(wrong("--hf-home and --store both say where to look; give one of them"));
    }
    let hub = std::path::absolute(context.places.expand(home).join("hub"))?;
    let specs = vec![StoreSpec::verbatim(StoreKind::Hub, hub)];
    Ok(resolve(specs, context.store_limit).into_iter().map(|found| found.spec).collect())
}

fn scan(args: &Hf, context: &Context, stores: &[StoreSpec]) -> Result<Verdict> {
    let survey = context.registry.survey(stores, &context.catalog()?, &context.looking())?;
    let xet: PathBuf = context.places.xet_cache(args.hf_home.as_deref());
    let report = HubReport::of(&survey, &[&xet], context.now);
    let wrong = report.problems.iter().any(|problem| problem.problem.severity > Severity::Info)
        || report.caches.iter().any(is_wrong);
    if context.printer.json {
        context.printer.json(&report)?;
        return Ok(Verdict::of_stores(report.caches.len(), wrong));
    }
    for problem in &report.problems {
        context.printer.warning(&problem.problem.message);
    }
    for cache in &report.caches {
        print(cache, context)?;
    }
    for xet in &report.xet {
        let parts: Vec<String> =
            xet.parts.iter().map(|(name, size)| format!("{name} {}", bytes(*size))).collect();
        context.printer.status(&format!(
            "{} in {}, Xet's own cache ({}); huggingface_hub makes it again",
            bytes(xet.usage.allocated_bytes),
            xet.path,
            parts.join(", ")
        ));
    }
    let total = report.allocated_bytes;
    context.printer.status(&format!("{} ({total} bytes) in all, each file once", bytes(total)));
    Ok(Verdict::of_stores(report.caches.len(), wrong))
}

fn is_wrong(cache: &HubCache) -> bool {
    cache.repos.iter().any(|repo| {
        repo.hidden.is_some() || repo.problems.iter().any(|kind| kind.severity() > Severity::Info)
    }) || cache.leftovers.iter().any(|leftover| leftover.kind != LeftoverKind::StaleLocks)
}

fn print(cache: &HubCache, context: &Context) -> Result<()> {
    let printer = &context.printer;
    let columns = [
        text("REPO", 0),
        text("KIND", 4),
        text("REVISION", 2),
        number("SIZE", 0),
        number("FREES", 1),
        number("USED", 3),
        number("MODIFIED", 3),
        text("REFS", 2),
        text("STATE", 0),
    ];
    let mut cells: Vec<Vec<String>> = Vec::new();
    for repo in &cache.repos {
        let kind = word(&repo.kind);
        for revision in &repo.revisions {
            let mut state = match (revision.superseded, revision.refs.is_empty()) {
                (true, _) => "superseded".to_owned(),
                (false, true) => "by commit".to_owned(),
                (false, false) => word(&revision.health),
            };
            if repo.hidden.is_some() {
                state.push_str(", hidden from hf");
            }
            cells.push(vec![
                repo.id.clone(),
                kind.clone(),
                revision.commit[..revision.commit.len().min(8)].to_owned(),
                bytes(revision.size_bytes),
                bytes(revision.reclaimable_bytes),
                age(revision.last_accessed, context.now),
                age(revision.last_modified, context.now),
                revision.refs.join(", "),
                state,
            ]);
        }
        if repo.revisions.is_empty() {
            let (used, modified) =
                (age(repo.last_accessed, context.now), age(repo.last_modified, context.now));
            let (size, frees) = (bytes(repo.leftovers_size_bytes), bytes(repo.reclaimable_bytes));
            let state = match repo.hidden {
                Some(_) => "no snapshot, hidden from hf".to_owned(),
                None => "no snapshot".to_owned(),
            };
            cells.push(vec![
                repo.id.clone(),
                kind,
                String::new(),
                size,
                frees,
                used,
                modified,
                String::new(),
                state,
            ]);
        }
    }
    if !cells.is_empty() {
        printer.data(&render(printer, &columns, &cells))?;
    }
    for repo in &cache.repos {
        if let Some(why) = &repo.hidden {
            printer.warning(&format!("`hf cache ls` leaves {} out: {why}", repo.id));
        }
    }
    if !cache.leftovers.is_empty() {
        let columns = [
            text("LEFTOVER", 0),
            text("WHAT", 0),
            number("SIZE", 0),
            number("FREES", 1),
            number("MODIFIED", 2),
        ];
        let of = |leftover: &mlxman_clean::HubLeftover| {
            vec![
                leftover.path.clone(),
                word(&leftover.kind),
                bytes(leftover.size_bytes),
                bytes(leftover.reclaimable_bytes),
                age(leftover.last_modified, context.now),
            ]
        };
        let cells: Vec<Vec<String>> = cache.leftovers.iter().map(of).collect();
        printer.data("")?;
        printer.data(&render(printer, &columns, &cells))?;
    }
    let trash = match cache.trash_bytes {
        0 => String::new(),
        size => format!("; {} in the trash (`mlxman trash empty`)", bytes(size)),
    };
    printer.status(&format!(
        "{}: {}, {} ({} bytes); leftovers free {}, superseded revisions {}{trash}",
        cache.store,
        plural(cache.repos.len(), "repo"),
        bytes(cache.usage.allocated_bytes),
        cache.usage.allocated_bytes,
        bytes(cache.leftovers_bytes),
        bytes(cache.superseded_bytes),
    ));
    Ok(())
}

/// A name as JSON has it.
fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).ok();
    value.and_then(|value| value.as_str().map(|word| word.replace('_', " "))).unwrap_or_default()
}

fn of_pattern(args: &Hf, context: &Context, stores: &[StoreSpec]) -> Result<Verdict> {
    let filters = FilterSet::parse(&FilterArgs { repos: args.pattern.clone(), ..FilterArgs::default() })?;
    let Planned { plan, read } = plan(context, (&filters, &Policies::default()), stores, None)?;
    if let Some(path) = &args.out {
        write(path, &plan, context)?;
    }
    if args.yes && !args.dry_run && read > 0 {
        return apply_plan(context, &plan, stores, args.now);
    }
    if context.printer.json {
        context.printer.json(&plan)?;
    } else {
        table(&plan, context)?;
        let told = match plan.candidates.is_empty() {
            true => "no repo matches".to_owned(),
            false => in_total(&plan).replace("`mlxman clean apply` does it", "`--yes` does it"),
        };
        context.printer.status(&told);
    }
    let wrong = plan.problems.iter().any(|problem| problem.problem.severity > Severity::Info);
    Ok(Verdict::of_stores(read, wrong))
}

fn write(path: &Path, plan: &mlxman_clean::Plan, context: &Context) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(plan)?;
    bytes.push(b'\n');
    mlxman_manifest::registry::write_whole(path, &bytes)
        .with_context(|| format!("the plan cannot be written to {}", path.display()))?;
    context.printer.status(&format!("the plan is in {}", path.display()));
    Ok(())
}
