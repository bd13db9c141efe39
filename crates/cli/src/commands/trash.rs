//! `mlxman trash`: what was removed and can be put back, and freeing it.

use anyhow::Result;
use mlxman_clean::filter::quantity::parse_age;
use mlxman_clean::{Freed, State, Trash, TrashEntry, TrashListing, list_trash};
use mlxman_store::{DirHandle, StoreSpec};

use crate::args::Empty;
use crate::context::Context;
use crate::exit::{Verdict, wrong};
use crate::table::{age, bytes, number, plural, render, text};
use crate::trash::{confirmed, freely, recover, recover_in};

pub(super) fn list(context: &Context) -> Result<Verdict> {
    let stores = context.some_stores()?;
    recover(context, &stores);
    let listing = listing_of(context, &stores);
    if context.printer.json {
        context.printer.json(&listing)?;
    } else {
        table(&listing, context)?;
    }
    for problem in &listing.problems {
        context.printer.warning(problem);
    }
    if listing.entries.is_empty() {
        context.printer.status("the trash is empty");
    } else {
        context.printer.status(&format!(
            "`mlxman trash empty` frees {} ({} bytes); `mlxman undo ID` puts back",
            bytes(listing.reclaimable_bytes),
            listing.reclaimable_bytes
        ));
    }
    Ok(Verdict::of(!listing.problems.is_empty()))
}

fn listing_of(context: &Context, stores: &[StoreSpec]) -> TrashListing {
    let (entries, problems) = entries(context, stores);
    let mut listing = TrashListing::default();
    listing.problems = problems;
    for (_, entry) in entries {
        listing.reclaimable_bytes += entry.reclaimable_bytes;
        if let Some(why) = &entry.problem {
            listing
                .problems
                .push(format!("{0} in {1} cannot be read: {why}; it is left alone (`mlxman trash empty {0}` frees it for good)", entry.id, entry.store));
        }
        listing.entries.push(entry);
    }
    listing
}

/// What lies in the trashes of these stores, oldest first, and what cannot be read.
pub(super) fn entries(
    context: &Context,
    stores: &[StoreSpec],
) -> (Vec<(StoreSpec, TrashEntry)>, Vec<String>) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for spec in stores.iter().filter(|spec| !context.silent_stores().contains(spec)) {
        match DirHandle::open_root(spec.root()).and_then(|root| list_trash(spec, &root)) {
            Ok(entries) => found.extend(entries.into_iter().map(|entry| (spec.clone(), entry))),
            Err(error) => problems.push(format!("the trash of {spec} cannot be read: {error}")),
        }
    }
    found.sort_by(|(_, a), (_, b)| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    (found, problems)
}

fn table(listing: &TrashListing, context: &Context) -> Result<()> {
    if listing.entries.is_empty() {
        return Ok(());
    }
    let columns = [text("ID", 0), text("WHAT", 0), number("FREES", 0), number("AGE", 1), text("STORE", 2)];
    let rows: Vec<Vec<String>> = listing
        .entries
        .iter()
        .map(|entry| {
            let what = match entry.rows.as_slice() {
                [] => plural(entry.items as usize, "item"),
                [one] => one.what.clone(),
                [first, rest @ ..] => format!("{} and {} more", first.what, rest.len()),
            };
            let what = match entry.state {
                Some(State::Shared) => format!("{what} (one with others; undo makes copies)"),
                _ => what,
            };
            let when = entry.created_at.map_or_else(String::new, |at| age(Some(at), context.now));
            vec![entry.id.clone(), what, bytes(entry.reclaimable_bytes), when, entry.store.clone()]
        })
        .collect();
    Ok(context.printer.data(&render(&context.printer, &columns, &rows))?)
}

pub(super) fn empty(args: &Empty, context: &Context) -> Result<Verdict> {
    let stores = context.some_stores()?;
    let older = args
        .older_than
        .as_deref()
        .map(|given| parse_age(given).map_err(|error| wrong(format!("--older-than {given}: {error}"))))
        .transpose()?;
    recover(context, &stores);
    let (found, problems) = entries(context, &stores);
    for id in &args.ids {
        if !found.iter().any(|(_, entry)| entry.id == *id) {
            return Err(wrong(format!(
                "there is nothing called {id} in the trash; `mlxman trash list` shows what there is"
            )));
        }
    }
    let is_chosen = |entry: &TrashEntry| {
        let asked = args.ids.is_empty() || args.ids.contains(&entry.id);
        let is_old = older.is_none_or(|age| entry.created_at.is_some_and(|at| context.now - at > age));
        // What keeps nothing is forgotten only by its name.
        let keeps_nothing = entry.state == Some(State::Shared);
        let is_named = (keeps_nothing || entry.problem.is_some()) && args.ids.contains(&entry.id);
        asked && is_old && (entry.state == Some(State::Kept) || is_named)
    };
    let chosen: Vec<&(StoreSpec, TrashEntry)> = found.iter().filter(|(_, entry)| is_chosen(entry)).collect();
    let total: u64 = chosen.iter().map(|(_, entry)| entry.reclaimable_bytes).sum();
    if !chosen.is_empty() && !args.yes {
        let question = format!("Free {} for good? This cannot be undone.", bytes(total));
        if !confirmed(context, &question)? {
            context.printer.status("nothing was freed");
            return Ok(Verdict::Fine);
        }
    }
    let mut freed: Vec<Freed> = Vec::new();
    let mut failed = problems;
    for (spec, entry) in chosen {
        match empty_in(context, spec, &entry.id) {
            Ok(one) => freed.push(one),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    let mut listing = listing_of(context, &stores);
    listing.freed_bytes = freed.iter().map(|one| one.freed_bytes).sum();
    listing.journal_bytes = freed.iter().map(|one| one.journal_bytes).sum();
    listing.freed = freed;
    listing.problems.extend(failed);
    for problem in &listing.problems {
        context.printer.warning(problem);
    }
    if context.printer.json {
        context.printer.json(&listing)?;
    }
    context.printer.status(&match listing.freed.len() {
        0 => "nothing was freed".to_owned(),
        _ => format!(
            "the disk got back {} ({} bytes), and {} that the journal took",
            bytes(listing.freed_bytes),
            listing.freed_bytes,
            bytes(listing.journal_bytes)
        ),
    });
    Ok(Verdict::of(!listing.problems.is_empty()))
}

fn empty_in(context: &Context, spec: &StoreSpec, id: &str) -> Result<Freed> {
    let root = DirHandle::open_root(spec.root())?;
    let waiting = || {
        context.printer.status(&format!("another mlxman changes {spec} just now; waiting for it"));
    };
    let trash = Trash::open(spec, &root, Some(&waiting), &freely)?;
    recover_in(context, &trash);
    Ok(trash.empty(id)?)
}
