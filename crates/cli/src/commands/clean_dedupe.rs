//! `mlxman clean dedupe`: equal files, and one copy of them.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context as _, Result};
use mlxman_clean::filter::quantity::parse_bytes;
use mlxman_clean::{
    Applied, AppliedStore, Applying, DuplicateCopy, DuplicateGroup, Duplicates, HashCache, How, MIN_SIZE,
    Search, Trash, apply_dedupe, find_duplicates,
};
use mlxman_manifest::registry::{SyncObserver as _, scan_all};
use mlxman_store::{DirHandle, Severity, StoreSpec, acting_user};

use crate::args::Dedupe;
use crate::context::Context;
use crate::exit::{Verdict, wrong};
use crate::printer::plain;
use crate::progress::{Watcher, catch_interrupts, interrupted};
use crate::table::{bytes, number, plural, reclaim, render, text};
use crate::trash::{confirmed, freely, recover, recover_in, renew, will_change};

pub(super) fn run(args: &Dedupe, context: &Context) -> Result<Verdict> {
    let min_size = match args.min_size.as_deref() {
        Some(given) => parse_bytes(given).map_err(|error| wrong(format!("--min-size {given}: {error}")))?,
        None => MIN_SIZE,
    };
    let stores = context.some_stores()?;
    recover(context, &stores);
    let mut cache = HashCache::read(context.registry.home());
    let (found, read) = find(args, context, &stores, min_size, &mut cache);
    if !context.printer.json || args.apply && !args.yes {
        warn(&found, context);
    }
    if !args.apply {
        if context.printer.json {
            context.printer.json(&found)?;
        } else {
            table(&found, context)?;
            context.printer.status(&in_total(&found));
        }
        return Ok(Verdict::of_stores(read, is_wrong(&found)));
    }
    if read == 0 || found.interrupted {
        context.printer.status("nothing was touched");
        return Ok(if read == 0 { Verdict::Failed } else { Verdict::Problems });
    }
    if found.groups.is_empty() {
        if context.printer.json {
            context.printer.json(&Applied::at(context.now))?;
        } else {
            table(&found, context)?;
        }
        context.printer.status(&in_total(&found));
        return Ok(Verdict::of(is_wrong(&found)));
    }
    if !args.yes {
        if !context.printer.json {
            table(&found, context)?;
        }
        if !confirmed(context, &question(&found, args))? {
            context.printer.status("nothing was touched");
            return Ok(Verdict::Fine);
        }
    }
    let (applied, failed) = carry_out(args, context, &found, &stores, &mut cache)?;
    context.printer.status(&told(&applied, args.now, context));
    if context.printer.json {
        context.printer.json(&applied)?;
    } else {
        print(&applied, context)?;
    }
    let done = applied.stores.iter().any(|store| !store.done.is_empty());
    let skipped = applied.stores.iter().any(|store| !store.skipped.is_empty() || !store.left.is_empty());
    let problems = failed || skipped || is_wrong(&found);
    Ok(if failed && !done { Verdict::Failed } else { Verdict::of(problems) })
}

/// The equal files, and how many stores could be read.
fn find(
    args: &Dedupe,
    context: &Context,
    stores: &[StoreSpec],
    min_size: u64,
    cache: &mut HashCache,
) -> (Duplicates, usize) {
    catch_interrupts();
    let watcher = Watcher::new(&context.printer);
    watcher.looking(true);
    let scans = scan_all(stores, context.silent_stores(), context.store_limit);
    watcher.looking(false);
    let stores: Vec<_> = stores.iter().cloned().zip(scans).collect();
    let step = |done: u64, total: u64, file: &str| {
        watcher.hashing(done, total, file);
        !interrupted()
    };
    let finding = Search {
        stores: &stores,
        min_size,
        hard_link: args.hardlink,
        user: acting_user(),
        hashes: &context.registry.hashes(),
        step: &step,
        now: context.now,
    };
    let found = find_duplicates(&finding, cache);
    watcher.finish();
    remember(context, cache);
    (found, stores.iter().filter(|(_, scan)| scan.is_ok()).count())
}

fn remember(context: &Context, cache: &mut HashCache) {
    if let Err(error) = cache.save() {
        context.printer.status(&format!("what was read is not remembered: {error}"));
    }
}

fn warn(found: &Duplicates, context: &Context) {
    for problem in &found.problems {
        context.printer.warning(&problem.problem.message);
    }
    if found.interrupted {
        context
            .printer
            .warning("it was stopped before all was read: there may be more; what was read is remembered");
    }
}

fn is_wrong(found: &Duplicates) -> bool {
    found.interrupted || found.problems.iter().any(|problem| problem.problem.severity > Severity::Info)
}

fn copies(found: &Duplicates) -> impl Iterator<Item = (&DuplicateGroup, &DuplicateCopy)> {
    found.groups.iter().flat_map(|group| group.copies.iter().map(move |copy| (group, copy)))
}

fn table(found: &Duplicates, context: &Context) -> Result<()> {
    let printer = &context.printer;
    let columns = [
        text("COPY", 0),
        number("SAVES", 0),
        text("HOW", 1),
        text("EQUAL TO, WHICH STAYS", 0),
        text("STORE", 2),
    ];
    let cells: Vec<Vec<String>> = copies(found)
        .map(|(group, copy)| {
            let how = if copy.certain { String::new() } else { ", if it can".to_owned() };
            let keeps = match &group.keeps {
                keeps if keeps.store == copy.file.store => keeps.what.clone(),
                keeps => format!("{} in {}", keeps.what, keeps.store),
            };
            vec![
                copy.file.what.clone(),
                reclaim(copy.saves_bytes, copy.saves_at_least),
                format!("{}{how}", copy.how.word()),
                keeps,
                copy.file.store.clone(),
            ]
        })
        .collect();
    if !cells.is_empty() {
        printer.data(&render(printer, &columns, &cells))?;
    }
    if !found.left.is_empty() {
        let columns = [text("LEFT", 0), number("SIZE", 1), text("WHY", 0)];
        let cells: Vec<Vec<String>> = found
            .left
            .iter()
            .map(|left| vec![left.what.clone(), bytes(left.size_bytes), left.reason.clone()])
            .collect();
        if !found.groups.is_empty() {
            printer.data("")?;
        }
        printer.data(&render(printer, &columns, &cells))?;
    }
    Ok(())
}

fn in_total(found: &Duplicates) -> String {
    let count = copies(found).count();
    if count == 0 {
        return match found.left.len() {
            0 => "no file of a model is there twice".to_owned(),
            left => format!("no copy can be saved; {} left as told above", plural(left, "file")),
        };
    }
    let expected = match found.expected_bytes {
        0 => String::new(),
        some => format!(
            ", of which {} if the filesystem lets files share blocks, as such ones mostly do",
            bytes(some)
        ),
    };
    format!(
        "{} of {}: the disk would get back {} ({} bytes){expected}; nothing was touched; `mlxman clean dedupe --apply` \
         does it",
        if count == 1 { "1 copy".to_owned() } else { format!("{count} copies") },
        plural(found.groups.len(), "file"),
        reclaim(found.saves_bytes, found.saves_at_least),
        found.saves_bytes
    )
}

fn question(found: &Duplicates, args: &Dedupe) -> String {
    let count = copies(found).count();
    let total = reclaim(found.saves_bytes, found.saves_at_least);
    let links = copies(found).any(|(_, copy)| copy.how == How::HardLink);
    let warning = if links {
        "Hard links are one file with several names: whoever edits one edits them all.\n"
    } else {
        ""
    };
    let when = if args.now || !links { "saves" } else { "saves, when the trash is emptied," };
    format!("{warning}Make one copy of {} and their equals, which {when} {total}?", plural(count, "file"))
}

/// Makes one copy, store by store; gives whether anything went wrong beside single files.
fn carry_out(
    args: &Dedupe,
    context: &Context,
    found: &Duplicates,
    specs: &[StoreSpec],
    cache: &mut HashCache,
) -> Result<(Applied, bool)> {
    let named: BTreeSet<&str> = copies(found)
        .flat_map(|(group, copy)| [group.keeps.store.as_str(), copy.file.store.as_str()])
        .collect();
    let mut roots = HashMap::new();
    for spec in specs.iter().filter(|spec| named.contains(spec.id().as_str())) {
        let root = DirHandle::open_root(spec.root()).with_context(|| {
            format!("the store {} cannot be opened; is its volume mounted?", spec.root().display())
        })?;
        roots.insert(spec.id(), root);
    }
    let watcher = Watcher::new(&context.printer);
    let total: u64 = copies(found).map(|(group, _)| group.size_bytes).sum();
    let compared = std::cell::Cell::new(0);
    let go_on = |more: u64| {
        compared.set(compared.get() + more);
        watcher.hashing(compared.get().min(total), total, "");
        !interrupted()
    };
    let applying =
        Applying { found, roots: &roots, hard_link: args.hardlink, go_on: &go_on, run: &context.run };
    let (mut applied, mut failed) = (Applied::at(context.now), false);
    let has_copies = |spec: &&StoreSpec| copies(found).any(|(_, copy)| copy.file.store == spec.id());
    let touched: Vec<StoreSpec> = specs.iter().filter(has_copies).cloned().collect();
    will_change(context, &touched);
    for spec in &touched {
        let Some(root) = roots.get(&spec.id()) else { continue };
        let waiting = || {
            context.printer.status(&format!("another mlxman changes {spec} just now; waiting for it"));
        };
        let mut trouble = |error: &dyn std::error::Error| {
            context.printer.warning(&error.to_string());
            failed = true;
        };
        let trash = match Trash::open(spec, root, Some(&waiting), &freely) {
            Ok(trash) => trash,
            Err(error) => {
                trouble(&error);
                continue;
            }
        };
        recover_in(context, &trash);
        let mut store = match apply_dedupe(&trash, &spec.id(), &applying) {
            Ok(store) => store,
            Err(error) => {
                trouble(&error);
                AppliedStore::of(spec.id())
            }
        };
        if let Some(id) = store.id.clone().filter(|id| args.now && trash.keeps(id)) {
            match trash.empty(&id) {
                Ok(freed) => {
                    store.freed_bytes += freed.freed_bytes;
                    store.reclaimable_bytes = 0;
                }
                Err(error) => trouble(&error),
            }
        }
        applied.add(store);
    }
    watcher.finish();
    cache.renew(found, &roots);
    remember(context, cache);
    failed |= !renew(context, &touched);
    Ok((applied, failed))
}

fn told(applied: &Applied, now: bool, context: &Context) -> String {
    let files: usize = applied.stores.iter().map(|store| store.done.len()).sum();
    if files == 0 {
        return "nothing was touched".to_owned();
    }
    let files = plural(files, "file");
    let freed = format!("the disk got back {} ({} bytes)", bytes(applied.freed_bytes), applied.freed_bytes);
    let stores =
        || applied.stores.iter().filter(|store| store.id.is_some()).map(|store| store.store.as_str());
    let undo = context.command("undo", stores());
    match (applied.reclaimable_bytes, now) {
        (0, _) => format!("{files} made one with their equals: {freed}; `{undo}` makes copies again"),
        (kept, _) => format!(
            "{files} made one with their equals; `{undo}` puts the copies back, `{}` frees {} ({kept} bytes)",
            context.command("trash empty", stores()),
            bytes(kept)
        ),
    }
}

fn print(applied: &Applied, context: &Context) -> Result<()> {
    let printer = &context.printer;
    for store in &applied.stores {
        for row in &store.done {
            printer.data(&format!("{} is {}", plain(&row.what), plain(&row.reason)))?;
        }
        for skipped in &store.skipped {
            printer.refusal(&format!("{} was left: {}", skipped.what, skipped.reason));
        }
        for left in &store.left {
            printer.warning(&format!("{}: {}", left.what, left.reason));
        }
        if let Some(id) = &store.id {
            printer.status(&format!("{id} in {}", store.store));
        }
    }
    Ok(())
}
