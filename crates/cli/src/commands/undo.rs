//! `mlxman undo`: what was taken goes back to where it was.

use anyhow::Result;
use mlxman_clean::{State, Trash, TrashEntry, UndoReport, Undone};
use mlxman_store::{DirHandle, StoreSpec};

use crate::args::Undo;
use crate::context::Context;
use crate::exit::{Verdict, wrong};
use crate::table::plural;
use crate::trash::{freely, recover, recover_in, renew, will_change};

pub(super) fn run(args: &Undo, context: &Context) -> Result<Verdict> {
    let stores = context.some_stores()?;
    recover(context, &stores);
    let (entries, unread) = super::trash::entries(context, &stores);
    let unended = entries.iter().filter(|(_, entry)| {
        entry.problem.is_some() || !matches!(entry.state, Some(State::Kept | State::Shared))
    });
    let mut wrong_there: Vec<String> = unread;
    wrong_there.extend(unended.map(|(spec, entry)| {
        let why =
            entry.problem.clone().unwrap_or_else(|| "it was not ended, and is another user's".to_owned());
        format!("{} in the trash of {spec} cannot be put back: {why}", entry.id)
    }));
    for problem in &wrong_there {
        context.printer.warning(problem);
    }
    let can_be = |entry: &TrashEntry| matches!(entry.state, Some(State::Kept | State::Shared));
    let kept = || entries.iter().filter(|(_, entry)| can_be(entry));
    // Another user's is put back only by its name.
    let newest = || {
        kept()
            .filter(|(_, entry)| !entry.foreign)
            .max_by_key(|(_, entry)| (entry.created_at, entry.id.clone()))
    };
    let id = match (&args.id, newest()) {
        (Some(id), _) => id.clone(),
        (None, Some((_, entry))) => entry.id.clone(),
        (None, None) => {
            context.printer.status("the trash is empty: there is nothing to put back");
            if context.printer.json {
                context.printer.json(&UndoReport::default())?;
            }
            return Ok(Verdict::of(!wrong_there.is_empty()));
        }
    };
    // One apply has one name in all the stores that it was about.
    let of: Vec<&(StoreSpec, TrashEntry)> = kept().filter(|(_, entry)| entry.id == id).collect();
    if of.is_empty() {
        return Err(wrong(format!(
            "there is nothing called {id} in the trash; `mlxman trash list` shows what there is"
        )));
    }
    let mut report = UndoReport::default();
    let specs: Vec<StoreSpec> = of.iter().map(|(spec, _)| spec.clone()).collect();
    will_change(context, &specs);
    for (spec, _) in of {
        match undo_in(context, spec, &id) {
            Ok(undone) => report.undone.push(undone),
            Err(error) => report.problems.push(format!("{error:#}")),
        }
    }
    renew(context, &specs);
    for undone in &report.undone {
        for stuck in &undone.stuck {
            context.printer.refusal(stuck);
        }
        let rows = plural(undone.rows.len(), "row");
        let rest = match (undone.stuck.is_empty(), undone.kept) {
            (true, _) => String::new(),
            (false, true) => format!(", but for what is told above; `mlxman undo {id}` tries that again"),
            (false, false) => ", but for what is told above".to_owned(),
        };
        context.printer.status(&format!("{rows} put back in {}{rest}", undone.store));
    }
    for problem in &report.problems {
        context.printer.warning(problem);
    }
    if context.printer.json {
        context.printer.json(&report)?;
    } else {
        for row in report.undone.iter().flat_map(|undone| &undone.rows) {
            context.printer.data(&format!("put back {}", crate::printer::plain(&row.what)))?;
        }
    }
    let stuck = report.undone.iter().any(|undone| !undone.stuck.is_empty());
    // What is still there as a whole can be tried again.
    let nothing = |undone: &Undone| undone.rows.is_empty() && undone.items == 0 && undone.kept;
    let failed = report.undone.iter().all(nothing);
    Ok(if failed { Verdict::Failed } else { Verdict::of(stuck || !report.problems.is_empty()) })
}

fn undo_in(context: &Context, spec: &StoreSpec, id: &str) -> Result<Undone> {
    let root = DirHandle::open_root(spec.root())?;
    let waiting = || {
        context.printer.status(&format!("another mlxman changes {spec} just now; waiting for it"));
    };
    let trash = Trash::open(spec, &root, Some(&waiting), &freely)?;
    recover_in(context, &trash);
    Ok(trash.undo(id)?)
}
