//! `mlxman clean apply`: what a preview showed goes into the trash.

use std::path::Path;

use anyhow::{Context as _, Result};
use mlxman_clean::filter::FilterSet;
use mlxman_clean::{Applied, AppliedStore, Plan, Policies as By, Trash, Watched, apply, trash_dir};
use mlxman_store::{DirHandle, StoreSpec};

use super::clean_preview::{is_wrong, table};
use crate::args::{Apply, Policies};
use crate::context::Context;
use crate::exit::{Verdict, wrong};
use crate::planning::{Planned, plan, policies};
use crate::select::filter_set;
use crate::table::{bytes, plural, reclaim};
use crate::trash::{confirmed, freely, recover, recover_in, renew, will_change};

pub(super) fn run(args: &Apply, context: &Context) -> Result<Verdict> {
    if args.plan.is_some() && args.policies != Policies::default() {
        return Err(wrong("a plan has the policies that it was made with: make a new one with others"));
    }
    if let Some(file) = args.filters.models.iter().find(|name| is_plan(name)) {
        return Err(wrong(format!(
            "{file} is a plan, and was taken for a model's name: say it before the filters"
        )));
    }
    let stores = context.some_stores()?;
    let given = match &args.plan {
        Some(path) => read(path)?,
        None => {
            let policies = policies(&args.policies, context)?;
            let filters = FilterSet::parse(&args.filters.args(Vec::new()))?;
            filter_set(context, &args.filters)?;
            recover(context, &stores);
            let Planned { plan, read } = plan(context, (&filters, &policies), &stores, None)?;
            if read == 0 {
                table(&plan, context)?;
                return Ok(Verdict::Failed);
            }
            plan
        }
    };
    let specs = stores_of(&given, &stores)?;
    if given.candidates.is_empty() {
        return nothing(&given, context);
    }
    if !args.yes {
        if !context.printer.json {
            table(&given, context)?;
        }
        if !confirmed(context, &question(&given, args.now))? {
            context.printer.status("nothing was touched");
            return Ok(Verdict::Fine);
        }
    }
    do_it(context, &given, (&specs, &stores), args.now)
}

/// Applies a plan that was made just now, without asking.
pub(super) fn apply_plan(context: &Context, given: &Plan, known: &[StoreSpec], now: bool) -> Result<Verdict> {
    if given.candidates.is_empty() {
        return nothing(given, context);
    }
    do_it(context, given, (&stores_of(given, known)?, known), now)
}

fn do_it(
    context: &Context,
    given: &Plan,
    (specs, known): (&[StoreSpec], &[StoreSpec]),
    now: bool,
) -> Result<Verdict> {
    let mut applied = Applied::at(context.now);
    let wrong = carry_out(context, given, (specs, known), now, &mut applied)?;
    context.printer.status(&told(&applied, now, context));
    if context.printer.json {
        context.printer.json(&applied)?;
    } else {
        print(&applied, context)?;
    }
    let skipped = applied.stores.iter().any(|store| !store.skipped.is_empty());
    let done = applied.stores.iter().any(|store| !store.done.is_empty());
    Ok(if wrong && !done { Verdict::Failed } else { Verdict::of(wrong || skipped) })
}

/// Whether a name that was given for a model's is that of a plan's file.
fn is_plan(name: &str) -> bool {
    name.ends_with(".json") && Path::new(name).is_file()
}

fn read(path: &Path) -> Result<Plan> {
    let text = fs_err::read(path).context("the plan cannot be read")?;
    let plan: Plan = serde_json::from_slice(&text).map_err(|error| {
        wrong(format!("{} is no plan that `mlxman clean preview --out` wrote: {error}", path.display()))
    })?;
    plan.check().map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    Ok(plan)
}

/// The stores that a plan is about, which have to be known: by the configuration, the environment or the call.
fn stores_of(plan: &Plan, known: &[StoreSpec]) -> Result<Vec<StoreSpec>> {
    let wanted =
        plan.stores.iter().filter(|store| plan.candidates.iter().any(|row| row.store == store.store));
    wanted
        .map(|store| {
            known.iter().find(|spec| spec.id() == store.store).cloned().ok_or_else(|| {
                wrong(format!(
                    "the plan is about {}, which is none of the stores here; name it with --store to apply it there",
                    store.store
                ))
            })
        })
        .collect()
}

fn nothing(plan: &Plan, context: &Context) -> Result<Verdict> {
    if context.printer.json {
        context.printer.json(&Applied::at(context.now))?;
    } else {
        table(plan, context)?;
    }
    context.printer.status("there is nothing to remove; nothing was touched");
    Ok(Verdict::of(is_wrong(plan)))
}

fn question(plan: &Plan, now: bool) -> String {
    let total = reclaim(plan.total_reclaimable_bytes, plan.total_reclaimable_at_least);
    let rows = plural(plan.candidates.len(), "row");
    if now {
        format!("Remove {rows} for good and free {total}? This cannot be undone.")
    } else {
        format!("Move {rows} into the trash ({total} when it is emptied)?")
    }
}

/// Applies the plan store by store; gives whether anything went wrong beside single rows.
fn carry_out(
    context: &Context,
    given: &Plan,
    (specs, known): (&[StoreSpec], &[StoreSpec]),
    now: bool,
    applied: &mut Applied,
) -> Result<bool> {
    let mut went_wrong = false;
    let mut roots = Vec::new();
    for spec in specs {
        let root = DirHandle::open_root(spec.root()).with_context(|| {
            format!("the store {} cannot be opened; is its volume mounted?", spec.root().display())
        })?;
        roots.push((spec, root));
    }
    // All locks first, in one order, so that two that apply to the same stores cannot wait for each other.
    roots.sort_by_key(|(spec, _)| *spec);
    let mut trashes = Vec::new();
    for (spec, root) in &roots {
        let waiting = || {
            context.printer.status(&format!("another mlxman changes {spec} just now; waiting for it"));
        };
        let trash = Trash::open(spec, root, Some(&waiting), &freely)?;
        recover_in(context, &trash);
        let watched = Watched::of(given, &spec.id(), root, chrono::Utc::now());
        trashes.push((*spec, trash, watched));
    }
    // Made anew under the locks, over all stores that it was made over: whatever may keep a row is asked again.
    let of_plan = |spec: &&StoreSpec| given.stores.iter().any(|store| store.store == spec.id());
    let all: Vec<StoreSpec> = known.iter().filter(of_plan).cloned().collect();
    let (filters, policies) = (FilterSet::parse(&given.filters)?, By::parse(&given.policies)?);
    let fresh = plan(context, (&filters, &policies), &all, Some(&given.only()))?.plan;
    will_change(context, specs);
    for (spec, trash, watched) in &trashes {
        let mut store = match apply(trash, &spec.id(), (given, &fresh), watched, &context.run) {
            Ok(store) => store,
            Err(error @ mlxman_clean::ApplyError::Plan(_)) => return Err(wrong(error.to_string())),
            Err(error) => {
                context.printer.warning(&error.to_string());
                went_wrong = true;
                AppliedStore::of(spec.id())
            }
        };
        if let (true, Some(id)) = (now, store.id.clone()) {
            match trash.empty(&id) {
                Ok(freed) => {
                    store.freed_bytes += freed.freed_bytes;
                    store.reclaimable_bytes = 0;
                    store.id = None;
                }
                Err(error) => {
                    context.printer.warning(&error.to_string());
                    went_wrong = true;
                }
            }
        }
        applied.add(store);
    }
    drop(trashes);
    went_wrong |= !renew(context, specs);
    Ok(went_wrong)
}

fn told(applied: &Applied, now: bool, context: &Context) -> String {
    let rows: usize = applied.stores.iter().map(|store| store.done.len()).sum();
    let freed = bytes(applied.freed_bytes);
    let stores =
        || applied.stores.iter().filter(|store| store.id.is_some()).map(|store| store.store.as_str());
    match (rows, now) {
        (0, _) => "nothing was removed".to_owned(),
        (_, true) => format!(
            "{} removed: the disk got back {freed} ({} bytes)",
            plural(rows, "row"),
            applied.freed_bytes
        ),
        (_, false) => format!(
            "{} moved into the trash; `{}` puts back, `{}` frees {} ({} bytes)",
            plural(rows, "row"),
            context.command("undo", stores()),
            context.command("trash empty", stores()),
            bytes(applied.reclaimable_bytes),
            applied.reclaimable_bytes
        ),
    }
}

fn print(applied: &Applied, context: &Context) -> Result<()> {
    let printer = &context.printer;
    for store in &applied.stores {
        if store.changed_since_plan {
            printer.status(&format!(
                "{} has changed since the plan was made: only what is as it was is removed",
                store.store
            ));
        }
        for row in &store.done {
            printer.data(&format!("removed {}", crate::printer::plain(&row.what)))?;
        }
        for skipped in &store.skipped {
            printer.refusal(&format!("{} was left: {}", skipped.what, skipped.reason));
        }
        for left in &store.left {
            printer.status(&format!("{} stays: {}", left.what, left.reason));
        }
        if let (Some(id), Ok(spec)) = (&store.id, store.store.parse::<StoreSpec>()) {
            printer.status(&format!("{id} in {}", trash_dir(spec.root()).display()));
        }
    }
    Ok(())
}
